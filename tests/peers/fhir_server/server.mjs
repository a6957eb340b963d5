// A FHIR R4 server for tests: a public FHIR engine (search, conditional interactions,
// transactions) over a repository in memory that validates every write and can roll back.
//
//   POST /_peer/validate   a resource in, an OperationOutcome out; nothing is kept
//   GET  /_peer/requests   what was asked so far: method, path, status
//   POST /_peer/faults     {"count": 2, "status": 503, "headers": {"Retry-After": "1"}} or
//                          {"count": 1, "drop": "after"}: commit, then cut the connection
//   POST /_peer/options    {"transactions": false}: transactions become batches without a word
//   POST /_peer/reset      forget resources, faults, options and requests

import { createServer } from 'node:http';
import { OperationOutcomeError, badRequest, deepClone, getStatus } from '@medplum/core';
import { FhirRouter, MemoryRepository } from '@medplum/fhir-router';
import { issuesOf, resourceTypes } from './validator.mjs';

const INVALID = 'invalid-resource';

class ValidatingRepository extends MemoryRepository {
  async createResource(resource, options) {
    const issue = issuesOf(resource);
    if (issue.length > 0) {
      throw new OperationOutcomeError({ resourceType: 'OperationOutcome', id: INVALID, issue });
    }
    return super.createResource(resource, options);
  }

  async readHistory(resourceType, id) {
    await this.readResource(resourceType, id);
    const versions = [...this.history.get(resourceType).get(id)].reverse();
    return {
      resourceType: 'Bundle',
      type: 'history',
      entry: versions.map((version) => ({ resource: deepClone(version) })),
    };
  }

  async withTransaction(callback) {
    const before = [copyOf(this.resources), copyOf(this.history)];
    try {
      return await callback(undefined);
    } catch (error) {
      restore(this.resources, before[0]);
      restore(this.history, before[1]);
      throw error;
    }
  }
}

function copyOf(byType) {
  const copy = new Map();
  for (const [type, byId] of byType) {
    copy.set(
      type,
      new Map([...byId].map(([id, value]) => [id, Array.isArray(value) ? [...value] : value]))
    );
  }
  return copy;
}

function restore(target, copy) {
  target.clear();
  copy.forEach((value, key) => target.set(key, value));
}

const router = new FhirRouter();
const repository = new ValidatingRepository();
let options = { transactions: true };
let faults = [];
let requests = [];

function statusOf(outcome) {
  return outcome.id === INVALID ? 422 : getStatus(outcome);
}

function capabilities() {
  return {
    resourceType: 'CapabilityStatement',
    status: 'active',
    date: '2026-01-01',
    kind: 'instance',
    fhirVersion: '4.0.1',
    format: ['json'],
    implementation: { description: 'A peer for tests' },
    rest: [
      {
        mode: 'server',
        interaction: options.transactions ? [{ code: 'transaction' }, { code: 'batch' }] : [{ code: 'batch' }],
        resource: [...resourceTypes].map((type) => ({
          type,
          conditionalCreate: true,
          conditionalUpdate: true,
          updateCreate: false,
          versioning: 'versioned-update',
        })),
      },
    ],
  };
}

async function answerFhir(request, url, body) {
  if (url.pathname === '/metadata') {
    return [200, capabilities()];
  }
  let resource;
  if (body.length > 0) {
    const contentType = request.headers['content-type'] ?? '';
    if (!/^application\/(fhir\+)?json\b/.test(contentType)) {
      return [415, badRequest('Content-Type must be application/fhir+json')];
    }
    try {
      resource = JSON.parse(body);
    } catch {
      return [400, badRequest('not JSON')];
    }
    if (resource.resourceType === 'Bundle' && options.transactions) {
      const issue = issuesOf(resource);
      if (issue.length > 0) {
        return [422, { resourceType: 'OperationOutcome', issue }];
      }
    }
  }
  const [outcome, result] = await router.handleRequest(
    {
      method: request.method,
      url: url.pathname.slice(1) + url.search,
      pathname: '',
      params: {},
      query: {},
      body: resource,
      headers: request.headers,
      config: { transactions: options.transactions },
    },
    repository
  );
  return [statusOf(outcome), result ?? outcome];
}

function answerPeer(path, body) {
  const value = body.length > 0 ? JSON.parse(body) : undefined;
  switch (path) {
    case '/_peer/validate': {
      const issue = issuesOf(value);
      return [issue.length > 0 ? 422 : 200, { resourceType: 'OperationOutcome', issue }];
    }
    case '/_peer/requests':
      return [200, requests];
    case '/_peer/faults':
      faults.push(value);
      return [200, {}];
    case '/_peer/options':
      options = { ...options, ...value };
      return [200, options];
    case '/_peer/mend':
      faults = [];
      return [200, {}];
    case '/_peer/reset':
      repository.clear();
      options = { transactions: true };
      faults = [];
      requests = [];
      return [200, {}];
    default:
      return [404, {}];
  }
}

function nextFault() {
  const fault = faults[0];
  if (fault && --fault.count <= 0) {
    faults.shift();
  }
  return fault;
}

function reply(response, status, body, headers = {}) {
  const version = body?.meta?.versionId;
  response.writeHead(status, {
    'Content-Type': 'application/fhir+json; charset=utf-8',
    ...(version ? { ETag: `W/"${version}"` } : {}),
    ...headers,
  });
  response.end(JSON.stringify(body));
}

async function serve(request, response) {
  const chunks = [];
  for await (const chunk of request) {
    chunks.push(chunk);
  }
  const body = Buffer.concat(chunks).toString('utf8');
  const url = new URL(request.url, 'http://peer');
  if (url.pathname.startsWith('/_peer/')) {
    reply(response, ...answerPeer(url.pathname, body));
    return;
  }
  const fault = nextFault();
  if (fault?.status) {
    requests.push({ method: request.method, path: request.url, status: fault.status });
    reply(response, fault.status, fault.body ?? badRequest('a fault on demand'), fault.headers);
    return;
  }
  const [status, result] = await answerFhir(request, url, body);
  requests.push({ method: request.method, path: request.url, status, dropped: Boolean(fault) });
  if (fault?.drop === 'after') {
    request.socket.destroy();
    return;
  }
  reply(response, status, result);
}

// One request at a time, so that a transaction sees no other.
let last = Promise.resolve();
const server = createServer((request, response) => {
  last = last.then(() =>
    serve(request, response).catch((error) => {
      console.error(error);
      reply(response, 500, badRequest('the peer failed'));
    })
  );
});
process.on('SIGTERM', () => process.exit(0));
server.listen(Number(process.argv[2] ?? 0), '127.0.0.1', () => {
  console.log(`listening on ${server.address().port}`);
});
