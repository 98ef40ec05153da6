// Runs graphql-http's public audits: node audits.js URL TOKEN.  Prints one JSON array: {id, name, status, reason}.
import { serverAudits } from 'graphql-http';

const [url, token] = process.argv.slice(2);

function authorized(input, init = {}) {
  return fetch(input, { ...init, headers: { ...init.headers, authorization: `Bearer ${token}` } });
}

const results = [];
for (const audit of serverAudits({ url, fetchFn: authorized })) {
  const { status, reason } = await audit.fn();
  results.push({ id: audit.id, name: audit.name, status, reason });
}
console.log(JSON.stringify(results));
