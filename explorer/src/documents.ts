// The documents in GraphiQL's tabs on the first visit: a first deployment, from left to right. documents.test.ts checks them against the schema and examples/hello.

interface Document {
  query: string;
  variables?: string;
}

const json = (variables: object) => JSON.stringify(variables, null, 2);

// The same as in examples/hello.
const composeFile = `services:
  web:
    image: \${IMAGE:-busybox:1}
    command: httpd -f -p 80 -h /srv
    init: true
    ports: ["127.0.0.1:\${PORT}:80"]
    volumes: ["./site:/srv:ro"]
    healthcheck: {test: wget -q -O /dev/null http://127.0.0.1/, interval: 1s}
`;
const page = '<h1>Hello from daos</h1>\n';

export const documents: Document[] = [
  {
    query: `# 1. What exists. Nothing to fill in:
#    press the pink button, or Ctrl-Enter.
query Overview {
  deployments {
    totalCount
    nodes {
      id
      projectName
      status
      host {
        name
        address
      }
      package {
        name
        version
      }
      latestRun {
        id
        number
        status
        reason
        message
        finishedAt
      }
    }
  }
}
`,
  },
  {
    query: `# 2. Where to deploy. Fill in below: the address,
#    and an SSH key's path on the daos server.
#    For the machine that daos runs on:
# "input": {"name": "me", "transport": "LOCAL"}
mutation CreateHost($input: CreateHostInput!) {
  createHost(input: $input) {
    host {
      id
      name
      transport
      address
    }
  }
}
`,
    variables: json({
      input: {
        name: 'web-1',
        transport: 'SSH',
        address: '192.0.2.10',
        port: 22,
        user: 'root',
        sshKeyPath: '/root/.ssh/id_ed25519',
      },
    }),
  },
  {
    query: `# 3. What to deploy: a Compose file, and the files
#    that belong to it. This one serves a page.
mutation CreatePackage($input: CreatePackageInput!) {
  createPackage(input: $input) {
    package {
      id
      name
      version
    }
  }
}
`,
    variables: json({
      input: { name: 'hello', version: '1', composeFile, files: [{ path: 'site/index.html', content: page }] },
    }),
  },
  {
    query: `# 4. The package on the host. Fill in below:
#    the ids that 2 and 3 have returned.
#    PORT is where the host serves the page.
mutation CreateDeployment($input: CreateDeploymentInput!) {
  createDeployment(input: $input) {
    deployment {
      id
      status
      projectName
    }
  }
}
`,
    variables: json({
      input: { hostId: 'HOST-ID', packageId: 'PACKAGE-ID', variables: [{ name: 'PORT', value: '8088' }] },
    }),
  },
  {
    query: `# 5. Deploy it. Fill in below: the id from 4.
#    DOWN instead of UP takes it down.
mutation Run($input: RunDeploymentInput!) {
  runDeployment(input: $input) {
    deployment {
      id
      status
    }
    run {
      id
      number
      status
    }
  }
}
`,
    variables: json({ input: { deploymentId: 'DEPLOYMENT-ID', action: 'UP' } }),
  },
  {
    query: `# 6. Its status now, then every change.
#    Fill in below: the deployment's id from 4.
subscription Watch($id: ID!) {
  deploymentStatus(id: $id) {
    at
    status
    run {
      id
      number
      status
      progress
      reason
      message
    }
  }
}
`,
    variables: json({ id: 'DEPLOYMENT-ID' }),
  },
  {
    query: `# 7. The log of a run, from its start, then live.
#    Fill in below: the run's id from 5.
#    An event has the new entries only; this page
#    shows them below the previous ones.
subscription FollowLog($runId: ID!) {
  runLog(runId: $runId) {
    complete
    entries {
      sequence
      at
      level
      phase
      message
    }
  }
}
`,
    variables: json({ runId: 'RUN-ID' }),
  },
];
