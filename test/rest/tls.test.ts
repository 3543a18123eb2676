import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { request } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect } from 'node:tls';
import { afterAll, expect, test } from 'vitest';
import { createRestServer } from '../../src/rest/create-server.ts';
import { createFakeApp } from '../helpers/fake-app.ts';

const folder = mkdtempSync(join(tmpdir(), 'gpuproxy-rest-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** A certificate for 127.0.0.1, made on the spot. */
function certificate() {
  const [cert, key] = [join(folder, 'cert.pem'), join(folder, 'key.pem')];
  const form = 'req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost';
  execFileSync(
    'openssl',
    [...form.split(' '), '-addext', 'subjectAltName=IP:127.0.0.1', '-keyout', key, '-out', cert],
    {
      stdio: 'ignore',
    },
  );
  return { cert: readFileSync(cert, 'utf8'), key: readFileSync(key, 'utf8') };
}

test('with a certificate the control plane speaks TLS 1.2 and up, and nothing else', async () => {
  const tls = certificate();
  const app = createFakeApp();
  const { key } = app.keys.create({ name: 'x', scope: 'read' });
  const server = await createRestServer({ app, host: '127.0.0.1', port: 0, tls });
  try {
    expect(server.url).toBe(`https://127.0.0.1:${server.port}`);
    const status = await new Promise((resolve, reject) => {
      request(`${server.url}/api/v1/fleet`, { ca: tls.cert, headers: { 'x-api-key': key }, agent: false }, (answer) => {
        answer.resume();
        resolve(answer.statusCode);
      })
        .on('error', reject)
        .end();
    });
    expect(status).toBe(200);

    const old = await new Promise((resolve) => {
      const options = { port: server.port, host: '127.0.0.1', ca: tls.cert };
      const socket = connect({ ...options, minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'ALL:@SECLEVEL=0' });
      socket.on('secureConnect', () => resolve('accepted'));
      socket.on('error', () => resolve('refused'));
    });
    expect(old).toBe('refused');

    const plain = await fetch(`http://127.0.0.1:${server.port}/healthz`).then(
      (answer) => answer.status,
      () => 'refused',
    );
    expect([400, 'refused']).toContain(plain);
  } finally {
    await server.close();
  }
});
