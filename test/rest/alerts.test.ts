import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { expect, test } from 'vitest';
import { parse } from 'yaml';

const isInstalled = spawnSync('promtool', ['--version']).error === undefined;
if (!isInstalled)
  process.stderr.write('SKIPPED LOUDLY: no promtool here to try the alerts (apt-get install prometheus)\n');

const file = resolve('docs/alerts.yml');
const { groups } = parse(readFileSync(file, 'utf8')) as {
  groups: { rules: { alert: string; labels: Record<string, string>; annotations: Record<string, string> }[] }[];
};
const rules = groups.flatMap((group) => group.rules);

/** Minute of the last look: later than the longest `for`. */
const minute = 80;
const job = { job: 'gpuproxy', instance: 'gpu-host:8080' };
type Case = Readonly<{
  /** What the alert carries besides its severity. */
  labels: Readonly<Record<string, string>>;
  /** Series with their labels, and what they are when it fires and when all is well, in promtool's notation. */
  series: readonly (readonly [name: string, labels: Readonly<Record<string, string>>, bad: string, good: string])[];
}>;
const vast = { ...job, provider: 'vast.ai' };
const upstream = { ...vast, upstream: 'vast-1' };
const cases: Readonly<Record<string, Case>> = {
  GpuproxyDown: { labels: job, series: [['up', job, '0x90', '1x90']] },
  GpuproxyNoEligibleUpstream: { labels: job, series: [['gpuproxy_eligible_upstreams', job, '0x90', '2x90']] },
  GpuproxyErrors: {
    labels: {},
    series: [
      ['gpuproxy_responses_total', { ...job, code: '2xx' }, '0+90x90', '0+99x90'],
      ['gpuproxy_responses_total', { ...job, code: '5xx' }, '0+10x90', '0+1x90'],
    ],
  },
  GpuproxyQueueing: { labels: job, series: [['gpuproxy_queued_requests', job, '3x90', '0x90']] },
  GpuproxySlowFirstByte: {
    labels: {},
    series: [
      ['gpuproxy_ttfb_seconds_bucket', { ...job, le: '5' }, '0+1x90', '0+100x90'],
      ['gpuproxy_ttfb_seconds_bucket', { ...job, le: '50' }, '0+100x90', '0+100x90'],
      ['gpuproxy_ttfb_seconds_bucket', { ...job, le: '+Inf' }, '0+100x90', '0+100x90'],
    ],
  },
  GpuproxyEjections: { labels: job, series: [['gpuproxy_ejections_total', job, '0+1x90', '2x90']] },
  GpuproxyProviderDown: { labels: vast, series: [['gpuproxy_provider_up', vast, '0x90', '1x90']] },
  GpuproxyCreditLow: {
    labels: vast,
    series: [
      ['gpuproxy_provider_credit_usd', vast, '5x90', '500x90'],
      ['gpuproxy_provider_usd_per_hour', vast, '1x90', '1x90'],
    ],
  },
  GpuproxyNearBudget: {
    labels: job,
    series: [
      ['gpuproxy_usd_per_hour', job, '4.9x90', '1x90'],
      ['gpuproxy_max_usd_per_hour', job, '5x90', '5x90'],
    ],
  },
  GpuproxyPrepaidTimeEnds: {
    labels: upstream,
    series: [['gpuproxy_upstream_expires_timestamp_seconds', upstream, `${minute * 60 + 600}x90`, '999999x90']],
  },
  GpuproxyForeignInstances: { labels: job, series: [['gpuproxy_foreign_instances', job, '1x90', '0x90']] },
};

/** The same alerts over series that are all bad, or all good. */
function scenario(state: 'bad' | 'good') {
  const all = Object.values(cases).flatMap(({ series }) => series);
  return {
    interval: '1m',
    input_series: all.map(([name, labels, bad, good]) => ({
      series: `${name}{${Object.entries(labels)
        .map(([label, value]) => `${label}="${value}"`)
        .join(',')}}`,
      values: state === 'bad' ? bad : good,
    })),
    alert_rule_test: rules.map(({ alert, labels, annotations }) => {
      const own = cases[alert]?.labels ?? {};
      const text = (template: string) =>
        template.replace(/\{\{ \$labels\.(\w+) \}\}/g, (_, name: string) => own[name] ?? '');
      return {
        eval_time: `${minute}m`,
        alertname: alert,
        exp_alerts:
          state === 'good'
            ? []
            : [
                {
                  exp_labels: { ...labels, ...own },
                  exp_annotations: Object.fromEntries(
                    Object.entries(annotations).map(([name, it]) => [name, text(it)]),
                  ),
                },
              ],
      };
    }),
  };
}

test('every alert has a case here', () => {
  expect(rules.map(({ alert }) => alert).sort()).toEqual(Object.keys(cases).sort());
});

test.skipIf(!isInstalled)('every alert fires when it should, and none when all is well', () => {
  const folder = mkdtempSync(join(tmpdir(), 'gpuproxy-alerts-'));
  const run = (tests: object[]) => {
    const path = join(folder, 'alerts.test.yml');
    writeFileSync(path, JSON.stringify({ rule_files: [file], evaluation_interval: '1m', tests }));
    return execFileSync('promtool', ['test', 'rules', path], { encoding: 'utf8', stdio: 'pipe' });
  };
  try {
    expect(run([scenario('bad'), scenario('good')])).toContain('SUCCESS');
    // It would be noticed: what is bad is not taken for good.
    const swapped = { ...scenario('bad'), input_series: scenario('good').input_series };
    expect(() => run([swapped])).toThrow(/FAILED/);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
