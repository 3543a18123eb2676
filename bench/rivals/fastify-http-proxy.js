// One argument: the upstreams, comma separated. Least work that spreads over several of them: round robin.
import proxy from '@fastify/http-proxy';
import Fastify from 'fastify';

const upstreams = process.argv[2].split(',');
let next = 0;
const app = Fastify({ logger: false });
app.register(proxy, {
  upstream: '',
  disableCache: false,
  replyOptions: { getUpstream: () => upstreams[next++ % upstreams.length] },
  undici: { connections: 2048, pipelining: 1 },
});
await app.listen({ host: '127.0.0.1', port: 0 });
console.log(app.server.address().port);
