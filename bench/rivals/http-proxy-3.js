// One argument: the upstreams, comma separated.
import http from 'node:http';
import { createProxyServer } from 'http-proxy-3';

const upstreams = process.argv[2].split(',');
let next = 0;
const proxy = createProxyServer({ agent: new http.Agent({ keepAlive: true, maxSockets: 4096 }) });
proxy.on('error', (_error, _req, res) => res.destroy?.());
const server = http.createServer((req, res) => proxy.web(req, res, { target: upstreams[next++ % upstreams.length] }));
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
