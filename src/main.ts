#!/usr/bin/env node
// A reader that closes early (`| head`) is a normal end, not a crash; it must be known before anything is written.
// A terminal that was closed is one too, but SIGHUP tells of it, and what must be finished still is.
for (const stream of [process.stdout, process.stderr]) {
  stream.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') process.exit();
    if (error.code !== 'EIO') throw error;
  });
}

const neededMajor = 24;

// This file must be understood by old versions of Node: it imports the program only after the check.
if (Number.parseInt(process.versions.node, 10) >= neededMajor) {
  if (process.env.GPUPROXY_REEXEC === '1' && process.channel) {
    process.on('disconnect', () => process.kill(process.pid, 'SIGTERM'));
    // Listening must not keep a command alive that is done.
    process.channel.unref();
  }
  keepCompiledCode();
  const { run } = await import('./cli/run.ts');
  process.exitCode = await run(process.argv.slice(2));
} else {
  await runWithPinnedNode();
}

/**
 * What V8 compiled is kept for the next start, which takes a third off it. Node stores it at the end of the process and
 * checks it against the sources; where nothing can be stored, each start compiles anew.
 */
function keepCompiledCode(): void {
  const { homedir } = process.getBuiltinModule('node:os');
  const caches = process.env.XDG_CACHE_HOME || `${homedir()}/.cache`;
  // Threads look for it in their environment.
  process.env.NODE_COMPILE_CACHE ??= `${caches}/gpuproxy`;
  process.getBuiltinModule('node:module').enableCompileCache(process.env.NODE_COMPILE_CACHE);
}

async function runWithPinnedNode(): Promise<void> {
  const [{ spawn }, { existsSync }, { fileURLToPath }] = await Promise.all([
    import('node:child_process'),
    import('node:fs'),
    import('node:url'),
  ]);
  const node = ['../node_modules/node/bin/node', '../../node/bin/node']
    .map((path) => fileURLToPath(new URL(path, import.meta.url)))
    .find((path) => existsSync(path));
  // The variable ends a loop of re-execution, should the pinned one be too old as well.
  if (node === undefined || process.env.GPUPROXY_REEXEC === '1') {
    process.stderr.write(
      `error: gpuproxy needs Node ${neededMajor} or newer\n` +
        `cause: this is Node ${process.versions.node} (${process.execPath})\n` +
        `hint: install Node ${neededMajor} or newer, or run "npm ci" in the checkout, which brings its own\n`,
    );
    process.exitCode = 2;
    return;
  }
  const child = spawn(node, [fileURLToPath(import.meta.url), ...process.argv.slice(2)], {
    // The channel tells the child when this process is gone, even by SIGKILL: nothing goes on renting unseen.
    stdio: ['inherit', 'inherit', 'inherit', 'ipc'],
    env: { ...process.env, GPUPROXY_REEXEC: '1' },
  });
  // A terminal sends Ctrl-C to both processes, so passing it on would make one press count as two.
  process.on('SIGINT', () => {
    if (!process.stdin.isTTY) child.kill('SIGINT');
  });
  for (const signal of ['SIGTERM', 'SIGHUP', 'SIGUSR2'] as const) process.on(signal, () => child.kill(signal));
  child.on('exit', (code, signal) => {
    process.exitCode =
      signal === null ? (code ?? 1) : 128 + ({ SIGINT: 2, SIGTERM: 15, SIGHUP: 1 }[signal as string] ?? 9);
    process.exit();
  });
}

export {};
