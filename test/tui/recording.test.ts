import { expect, test, vi } from 'vitest';
import { createReplayApp, RecordingError, redact, startRecording } from '../../src/tui/recording.ts';
import { renderFrame } from '../../src/tui/render-frame.ts';
import { createFakeApp } from './fake-app.ts';

test('a recording shows the same frames again, at another speed, with the same events', async () => {
  const app = createFakeApp();
  let text = '';
  const stop = startRecording(app, (line) => {
    text += line;
  });
  const frames: string[] = [];
  const frame = (source: Pick<typeof app, 'state'>) => renderFrame(source.state.get(), { columns: 120, rows: 30 });
  for (let second = 0; second < 5; second += 1) {
    frames.push(frame(app));
    app.tick(1000);
    if (second === 2) app.emit('warn', 'provider', 'io.net', 'API 429');
  }
  stop();
  app.tick(1000);

  let clock = 0;
  using replay = createReplayApp(text, { speed: 4, monotonicMs: () => clock });
  for (let second = 0; second < 5; second += 1) {
    clock = second * 250 + 1;
    await vi.waitFor(() => expect(frame(replay)).toBe(frames[second]), { timeout: 2000, interval: 20 });
  }
  expect(replay.events.recent().at(-1)?.message).toBe('API 429');
  clock = 60_000;
  await vi.waitFor(() => expect(replay.ended).toBe(true));
  await expect(replay.setStrategy('round_robin', 'test')).rejects.toThrow('recording');
});

test('a recording has no secrets in it', () => {
  const app = createFakeApp();
  app.emit('error', 'provider', 'vast.ai', 'GET https://user:hunter2@console.vast.ai/api?api_key=abcdef123 failed');
  app.emit('error', 'provider', 'vast.ai', 'sent Authorization: Bearer sk-verysecretvalue and token=abc123');
  let text = '';
  startRecording(app, (line) => {
    text += line;
  })();
  for (const secret of ['hunter2', 'abcdef123', 'sk-verysecretvalue', 'abc123']) expect(text).not.toContain(secret);
  expect(text).toContain('https://console.vast.ai/api');
  expect(redact('nothing to hide, 4 of 5')).toBe('nothing to hide, 4 of 5');
});

test('a file that is no recording is refused with the line', () => {
  expect(() => createReplayApp('hello')).toThrow(RecordingError);
  expect(() => createReplayApp('{"kind":"gpuproxy-recording","version":1}\n{"kind":"snapshot","snapshot":{}}')).toThrow(
    /line 2: snapshot/,
  );
  expect(() => createReplayApp('')).toThrow('no picture');
});
