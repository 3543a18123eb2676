import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { route } from '../../src/cli/arguments.ts';
import { bodyText, parseEvents } from '../../src/cli/client.ts';
import { colorWanted } from '../../src/cli/color.ts';
import { findConnection } from '../../src/cli/connection.ts';
import { CliError, describeError, exitCodeMeanings, exitCodes } from '../../src/cli/exit.ts';
import { commands } from '../../src/cli/index.ts';
import { plainLines, proseLines, tableLines, usd } from '../../src/cli/output.ts';
import { nearest } from '../../src/core/words.ts';

describe('the router', () => {
  it('finds the command wherever the common options stand', () => {
    const expected = { command: 'load', rest: ['--key', 'K', 'server'] };
    expect(route(['-key', 'K', 'load', 'server'])).toEqual(expected);
    expect(route(['--key', 'K', 'load', 'server'])).toEqual(expected);
    expect(route(['load', '-key', 'K', 'server'])).toEqual(expected);
  });

  it('turns single-dash long forms into the usual ones and leaves short ones alone', () => {
    expect(route(['-url=http://h', '-json', 'list', '-q', '-k', 'K']).rest).toEqual([
      '--url=http://h',
      '--json',
      '-q',
      '-k',
      'K',
    ]);
  });

  it('takes a value that begins with a dash or is a command word for what it is', () => {
    expect(route(['-key', '-secret', 'load'])).toEqual({ command: 'load', rest: ['--key', '-secret'] });
    expect(route(['-key', 'load', 'list'])).toEqual({ command: 'list', rest: ['--key', 'load'] });
  });

  it('gives --watch its default unless a number follows', () => {
    expect(route(['load', '--watch', 'server']).rest).toEqual(['--watch=2', 'server']);
    expect(route(['--watch', '5', 'load']).rest).toEqual(['--watch=5']);
    expect(route(['load', '-w']).rest).toEqual(['--watch=2']);
  });

  it('takes nothing behind -- for an option', () => {
    expect(route(['logs', '--', '-key'])).toEqual({ command: 'logs', rest: ['--', '-key'] });
  });

  it('loses no word', () => {
    fc.assert(
      fc.property(fc.array(fc.stringMatching(/^[a-z-]{1,8}$/)), (words) => {
        const { command, rest } = route(words.filter((word) => word !== '--watch' && word !== '-w' && word !== '--'));
        const kept = words.filter((word) => word !== '--watch' && word !== '-w' && word !== '--');
        expect(rest.length + (command === undefined ? 0 : 1)).toBe(kept.length);
      }),
    );
  });
});

describe('the nearest word', () => {
  it.each([
    ['least_conn', 'least_connections'],
    ['least-conections', 'least_connections'],
    ['roundrobin', 'round_robin'],
    ['weigthed_round_robin', 'weighted_round_robin'],
  ])('takes %s for %s', (typed, meant) => {
    expect(
      nearest(typed, [
        'round_robin',
        'equal_weighted',
        'weighted_round_robin',
        'least_connections',
        'least_response_time',
      ]),
    ).toBe(meant);
  });

  it('does not guess at what is far from everything', () => {
    expect(
      nearest(
        'bogus',
        commands.map(({ name }) => name),
      ),
    ).toBeUndefined();
    expect(nearest('', ['load'])).toBeUndefined();
  });
});

describe('a table', () => {
  const columns = [
    { title: 'NAME', width: 6, value: (row: { name: string; note: string }) => row.name, cut: 6 },
    { title: 'NOTE', value: (row: { name: string; note: string }) => row.note, cut: 6 },
  ];

  it('fits the width it is given by cutting what may be cut', () => {
    fc.assert(
      fc.property(
        fc.string({ maxLength: 60 }),
        fc.string({ maxLength: 200 }),
        fc.integer({ min: 20, max: 120 }),
        (name, note, width) => {
          for (const line of tableLines(columns, [{ name, note }], width))
            expect(line.length).toBeLessThanOrEqual(width);
        },
      ),
    );
  });

  it('cuts nothing without a width, and leaves no blanks at the ends of lines', () => {
    const note = 'x'.repeat(300);
    const lines = tableLines(columns, [{ name: 'a', note }]);
    expect(lines).toEqual(['NAME    NOTE', `a       ${note}`]);
    for (const line of lines) expect(line).toBe(line.trimEnd());
  });

  it('says nothing of columns with nothing in them before it cuts others, and shows them where there is room', () => {
    const rows = [{ name: 'the name of it', note: '' }];
    expect(tableLines(columns, rows, 16)).toEqual(['NAME', 'the name of it']);
    expect(tableLines(columns, rows, 20)).toEqual(['NAME            NOTE', 'the name of it']);
    expect(tableLines(columns, [], 5)).toEqual(['NAME    NOTE']);
  });

  it('uses brief words before it cuts, and cuts nothing when that would not make it fit', () => {
    const [name, note] = columns;
    const row = { name: 'NVIDIA GeForce', note: 'why' };
    const brief = [{ ...name!, brief: () => 'GeForce' }, note!];
    expect(tableLines(brief, [row], 21)).toEqual(['NAME            NOTE', 'NVIDIA GeForce  why']);
    expect(tableLines(brief, [row], 18)).toEqual(['NAME     NOTE', 'GeForce  why']);
    expect(tableLines(columns, [row], 12)).toEqual(['NAME    NOTE', 'NVIDI…  why']);
    expect(tableLines(columns, [row], 11)).toEqual(['NAME            NOTE', 'NVIDIA GeForce  why']);
  });

  it('gives the amounts of one column the same decimals', () => {
    const spent = { title: 'SPENT', usd: (amount: number | null) => amount };
    expect(tableLines([spent], [1.2, 0.0123, 0, null])).toEqual(['SPENT', '$1.2000', '$0.0123', '$0.0000', '-']);
    expect(tableLines([spent], [1.2, 0])).toEqual(['SPENT', '$1.20', '$0.00']);
    expect(plainLines([spent], [1.2, 0.0123, null])).toEqual(['1.2', '0.0123', '']);
  });

  it('does not let the text of others move the cursor or break the line', () => {
    const [, line] = tableLines(columns, [{ name: 'a\u001b[2J\nb', note: '\u009b31m' }]);
    expect(line).not.toMatch(/[\u0000-\u001f\u007f-\u009f]/);
  });
});

describe('arguments of a container, as they are shown', () => {
  const shown = (...args: string[]) =>
    (JSON.parse(bodyText({ config: { args } }, (name) => `$${name}`)) as { config: { args: string[] } }).config.args;

  it.each([
    [
      ['--api-key', 's1'],
      ['--api-key', '$API_KEY'],
    ],
    [
      ['--api-key', 's1', 's2', '--port', '8000'],
      ['--api-key', '$API_KEY', '$API_KEY_2', '--port', '8000'],
    ],
    [['--api-key=s1,s2;&"'], ['--api-key=$API_KEY']],
    [
      ['--hf-token=s1', '--other_token', 's1'],
      ['--hf-token=$HF_TOKEN', '--other_token', '$OTHER_TOKEN'],
    ],
    [
      ['HF_TOKEN=s1', 'DB_PASSWORD=s2'],
      ['HF_TOKEN=$HF_TOKEN', 'DB_PASSWORD=$DB_PASSWORD'],
    ],
    [
      ['sh', '-c', 'export HF_TOKEN="s1 s2" && SECRET=s3; vllm'],
      ['sh', '-c', 'export HF_TOKEN="$HF_TOKEN" && SECRET=$SECRET; vllm'],
    ],
    [['Authorization: Bearer s1'], ['Authorization: Bearer $AUTHORIZATION']],
    [['{"api_key":"s1"}'], ['{"api_key":"$API_KEY"}']],
    [['http://host/?key=s1&model=x'], ['http://host/?key=$KEY&model=x']],
    [
      ['--key', 's1', '--ssl-keyfile', '/a'],
      ['--key', '$KEY', '--ssl-keyfile', '/a'],
    ],
  ])('%j', (args, expected) => expect(shown(...args)).toEqual(expected));

  it('are left alone where they only speak of tokens and keys', () => {
    const args = ['--max-tokens', '5', '--max-num-batched-tokens=4096', '--tokenizer', 'a/b', '--monkey', 'x'];
    expect(shown(...args)).toEqual(args);
  });
});

describe('a sentence', () => {
  it('is broken between words, never in a word or in what is quoted', () => {
    const text = 'set UPSTREAMS; until then "gpuproxy tui" shows a simulated fleet';
    expect(proseLines(text, 30)).toEqual(['set UPSTREAMS; until then', '"gpuproxy tui" shows a', 'simulated fleet']);
    expect(proseLines(text, 40, 10)).toEqual([
      'set UPSTREAMS; until then',
      '          "gpuproxy tui" shows a',
      '          simulated fleet',
    ]);
    expect(proseLines('a "quote that ends nowhere', 9)).toEqual(['a "quote', 'that ends', 'nowhere']);
    fc.assert(
      fc.property(fc.string({ maxLength: 200 }), fc.integer({ min: 1, max: 90 }), (any, width) => {
        const words = (lines: readonly string[]) => lines.join(' ').split(/\s+/).filter(Boolean);
        expect(words(proseLines(any, width))).toEqual(words([any]));
      }),
    );
  });
});

describe('money', () => {
  it('has two digits, and four where two would make it nothing', () => {
    expect([usd(0.79), usd(1.99), usd(0), usd(0.0123), usd(null)]).toEqual(['$0.79', '$1.99', '$0.00', '$0.0123', '-']);
  });
});

describe('colour', () => {
  it.each([
    ['auto', {}, true, true],
    ['auto', {}, false, false],
    ['auto', { NO_COLOR: '1' }, true, false],
    ['auto', { NO_COLOR: '' }, true, true],
    ['always', { NO_COLOR: '1' }, false, true],
    ['never', { FORCE_COLOR: '1' }, true, false],
    ['auto', { NO_COLOR: '1', FORCE_COLOR: '1' }, true, false],
    ['auto', { GPUPROXY_COLOR: 'always', NO_COLOR: '1' }, false, true],
    ['auto', { FORCE_COLOR: '1' }, false, true],
    ['auto', { CLICOLOR: '0' }, true, false],
    ['auto', { TERM: 'dumb' }, true, false],
  ] as const)('with --color=%s, %j and terminal %s is %s', (choice, environment, terminal, wanted) => {
    expect(colorWanted(choice, environment, terminal)).toBe(wanted);
  });
});

describe('server-sent events', () => {
  const collect = async (chunks: readonly Buffer[]) => {
    const found = [];
    for await (const event of parseEvents(
      (async function* () {
        yield* chunks;
      })(),
    ))
      found.push(event);
    return found;
  };
  const text =
    ': hello\r\nid: 7\r\nevent: rental\r\ndata: {"a":\r\ndata: "ü"}\r\n\r\nid: 8\ndata: x\n\ndata: unfinished';

  it('come out the same however the bytes are cut', async () => {
    const bytes = Buffer.from(text);
    const whole = await collect([bytes]);
    expect(whole).toEqual([
      { id: '7', event: 'rental', data: '{"a":\n"ü"}' },
      { id: '8', event: 'message', data: 'x' },
    ]);
    for (let at = 1; at < bytes.length; at += 1) {
      expect(await collect([bytes.subarray(0, at), bytes.subarray(at)])).toEqual(whole);
    }
  });
});

describe('the connection of a client command', () => {
  const nowhere = { GPUPROXY_CONFIG_DIR: '/nonexistent' };

  it('takes an URL with the API path as that of the server', () => {
    expect(findConnection({ url: 'http://h:1/api/v1/' }, nowhere, '/').url).toBe('http://h:1');
  });

  it('names the variable of a wrong value and never shows a key', () => {
    expect(() => findConnection({}, { ...nowhere, GPUPROXY_URL: 'ftp://x' }, '/')).toThrow(
      'GPUPROXY_URL: got "ftp://x", accepts an http:// or https:// URL',
    );
    try {
      findConnection({}, { ...nowhere, GPUPROXY_API_KEY: 'sec ret' }, '/');
      expect.unreachable();
    } catch (error) {
      expect((error as Error).message).toContain('GPUPROXY_API_KEY');
      expect((error as Error).message).not.toContain('sec ret');
    }
  });
});

describe('an error', () => {
  const error = new CliError(exitCodes.unreachable, 'unreachable', 'could not reach it', {
    why: 'nobody',
    hint: 'start it',
  });

  it('is three lines for people', () => {
    expect(describeError(error, false)).toBe('error: could not reach it\ncause: nobody\nhint: start it\n');
  });

  it('is one document for programs', () => {
    expect(JSON.parse(describeError(error, true))).toEqual({
      error: {
        code: 'unreachable',
        message: 'could not reach it',
        cause: 'nobody',
        hint: 'start it',
        status: null,
        request_id: null,
      },
    });
  });

  it('has a meaning for each exit code', () => {
    expect(Object.keys(exitCodeMeanings).map(Number)).toEqual(Object.values(exitCodes).toSorted((a, b) => a - b));
  });
});
