import { type CommandEntry, commands } from './index.ts';

/** The help of the program. */
export function overview(): string {
  const label = (entry: CommandEntry) => `${entry.name} ${entry.usage}`.trimEnd();
  const width = Math.max(...commands.map((entry) => label(entry).length));
  const groups = [...new Set(commands.map((entry) => entry.group))];
  const list = groups.map((group) => {
    const lines = commands
      .filter((entry) => entry.group === group)
      .map((entry) => `  ${label(entry).padEnd(width)}  ${entry.summary}`);
    return `${group}:\n${lines.join('\n')}\n`;
  });
  return `Usage: gpuproxy <command> [options]

One endpoint in front of rented GPUs on vast.ai and io.net.

${list.join('\n')}
Common options:
  -k, --key <key>   API key (GPUPROXY_API_KEY)
  -u, --url <url>   control plane of the server (GPUPROXY_URL, default http://127.0.0.1:8080)
  --json            print the body of the REST answer, nothing else
  -h, --help        help on a command
  --version         version of this program

Examples:
  gpuproxy tui                            the dashboard; a simulated fleet when nothing is configured
  gpuproxy serve                          the same system without a screen
  gpuproxy load                           load of every instance, availability of the providers
  gpuproxy lb-strategy least_connections  switch the strategy live
  gpuproxy reserve 4 --min-vram 24        rent 4 GPUs

More: gpuproxy help <command>, gpuproxy help exit-codes
`;
}
