// The official JavaScript client against a running kube1: node --test official.mjs. KUBECONFIG says where.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, before, suite, test } from 'node:test';
import { PassThrough, Readable } from 'node:stream';
import * as k8s from '@kubernetes/client-node';

const IMAGE = 'kube1.local/busybox:1';
const DEADLINE = 60_000;
const config = new k8s.KubeConfig();
config.loadFromDefault();
const core = config.makeApiClient(k8s.CoreV1Api);
const apps = config.makeApiClient(k8s.AppsV1Api);
const as = (strategy) => k8s.setHeaderOptions('Content-Type', strategy);
let namespace;

/** Asks until `condition` gives something true. */
async function eventually(what, condition) {
  const end = Date.now() + DEADLINE;
  for (;;) {
    const value = await condition();
    if (value) return value;
    assert(Date.now() < end, `${what}: not within ${DEADLINE} ms`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/** A writable that keeps what it is given. */
function sink() {
  const stream = new PassThrough();
  stream.text = '';
  stream.on('data', (chunk) => (stream.text += chunk));
  return stream;
}

const configMap = (name, data, labels) => ({ metadata: { name, labels }, data });
const pod = (name, command, labels) => ({
  metadata: { name, labels },
  spec: {
    terminationGracePeriodSeconds: 0,
    containers: [{ name: 'main', image: IMAGE, stdin: true, command: ['sh', '-c', command], ports: [{ containerPort: 8080 }] }],
  },
});
const refused = (code, reason) => (error) => {
  assert.equal(error.code, code, String(error));
  assert.equal(JSON.parse(error.body).reason, reason);
  return true;
};

before(async () => {
  const made = await core.createNamespace({ body: { metadata: { generateName: 'javascript-' } } });
  namespace = made.metadata.name;
  await eventually('the service account', async () => (await core.listNamespacedServiceAccount({ namespace })).items.length);
});
after(() => core.deleteNamespace({ name: namespace }));

suite('objects', () => {
  test('create, read, replace, delete', async () => {
    const made = await core.createNamespacedConfigMap({ namespace, body: configMap('one', { a: '1' }) });
    assert(made.metadata.creationTimestamp instanceof Date);
    await assert.rejects(core.createNamespacedConfigMap({ namespace, body: configMap('one') }), refused(409, 'AlreadyExists'));
    made.data.a = '2';
    const replaced = await core.replaceNamespacedConfigMap({ name: 'one', namespace, body: made });
    assert.equal(replaced.data.a, '2');
    await assert.rejects(core.replaceNamespacedConfigMap({ name: 'one', namespace, body: made }), refused(409, 'Conflict'));
    const status = await core.deleteNamespacedConfigMap({ name: 'one', namespace });
    assert.equal(status.status, 'Success');
    await assert.rejects(core.readNamespacedConfigMap({ name: 'one', namespace }), refused(404, 'NotFound'));
  });

  test('lists in pages', async () => {
    for (let n = 0; n < 5; n++) await core.createNamespacedConfigMap({ namespace, body: configMap(`page-${n}`, {}, { app: 'paged' }) });
    const names = [];
    let _continue;
    do {
      const page = await core.listNamespacedConfigMap({ namespace, labelSelector: 'app=paged', limit: 2, _continue });
      names.push(...page.items.map((item) => item.metadata.name));
      _continue = page.metadata._continue;
    } while (_continue);
    assert.deepEqual(names, [0, 1, 2, 3, 4].map((n) => `page-${n}`));
  });

  test('every patch type', async () => {
    const labels = { app: 'patched' };
    const containers = [{ name: 'a', image: IMAGE }];
    const spec = { replicas: 0, selector: { matchLabels: labels }, template: { metadata: { labels }, spec: { containers } } };
    await apps.createNamespacedDeployment({ namespace, body: { metadata: { name: 'patched' }, spec } });
    const patch = (strategy, body, more) =>
      apps.patchNamespacedDeployment({ name: 'patched', namespace, body, ...more }, as(strategy));
    const added = { spec: { template: { spec: { containers: [{ name: 'b', image: IMAGE }] } } } };
    const strategic = await patch(k8s.PatchStrategy.StrategicMergePatch, added);
    assert.deepEqual(strategic.spec.template.spec.containers.map((c) => c.name), ['a', 'b']);
    const merged = await patch(k8s.PatchStrategy.MergePatch, added);
    assert.deepEqual(merged.spec.template.spec.containers.map((c) => c.name), ['b']);
    const json = await patch(k8s.PatchStrategy.JsonPatch, [{ op: 'replace', path: '/spec/replicas', value: 1 }]);
    assert.equal(json.spec.replicas, 1);
    const applied = { apiVersion: 'apps/v1', kind: 'Deployment', metadata: { name: 'patched', annotations: { by: 'apply' } } };
    const apply = await patch(k8s.PatchStrategy.ServerSideApply, applied, { fieldManager: 'trial' });
    assert.equal(apply.metadata.annotations.by, 'apply');
    assert(apply.metadata.managedFields.some((m) => m.manager === 'trial' && m.operation === 'Apply'));
    const conflicting = { ...applied, spec: { replicas: 5 } };
    await assert.rejects(
      patch(k8s.PatchStrategy.ServerSideApply, conflicting, { fieldManager: 'trial' }),
      refused(409, 'Conflict'),
    );
    const forced = await patch(k8s.PatchStrategy.ServerSideApply, conflicting, { fieldManager: 'trial', force: true });
    assert.equal(forced.spec.replicas, 5);
    await apps.deleteNamespacedDeployment({ name: 'patched', namespace, propagationPolicy: 'Foreground' });
  });

  test('objects of any kind', async () => {
    const objects = k8s.KubernetesObjectApi.makeApiClient(config);
    const spec = { apiVersion: 'v1', kind: 'Service', metadata: { name: 'any', namespace }, spec: { ports: [{ port: 80 }] } };
    assert((await objects.create(spec)).spec.clusterIP);
    const changed = await objects.patch({ ...spec, metadata: { ...spec.metadata, labels: { a: 'b' } } });
    assert.equal(changed.metadata.labels.a, 'b');
    assert.equal((await objects.list('v1', 'Service', namespace)).items.length, 1);
    await objects.delete(spec);
  });

  test('health, version, metrics and access', async () => {
    const health = new k8s.Health(config);
    assert(await health.readyz({}));
    assert(await health.livez({}));
    const version = await config.makeApiClient(k8s.VersionApi).getCode();
    assert.equal(`${version.major}.${version.minor}`, '1.36');
    const node = await eventually('metrics of the node', async () => {
      const list = await new k8s.Metrics(config).getNodeMetrics().catch(() => ({ items: [] }));
      return list.items[0];
    });
    assert(node.usage.cpu && node.usage.memory);
    assert((await k8s.topNodes(core))[0].CPU.Capacity > 0);
  });
});

suite('watches', () => {
  test('a watch', async () => {
    const list = await core.listNamespacedSecret({ namespace });
    const seen = [];
    const query = { resourceVersion: list.metadata.resourceVersion, allowWatchBookmarks: true };
    let ended;
    const controller = await new k8s.Watch(config).watch(
      `/api/v1/namespaces/${namespace}/secrets`,
      query,
      (type, object) => seen.push(`${type} ${object.metadata.name}`),
      (error) => (ended = error ?? true),
    );
    await core.createNamespacedSecret({ namespace, body: { metadata: { name: 's' }, stringData: { a: 'b' } } });
    await core.deleteNamespacedSecret({ name: 's', namespace });
    await eventually('both events', () => seen.length === 2);
    assert.deepEqual(seen, ['ADDED s', 'DELETED s']);
    controller.abort();
    await eventually('the end', () => ended);
  });

  test('an informer', async () => {
    await core.createNamespacedConfigMap({ namespace, body: configMap('known', {}, { informed: 'yes' }) });
    const list = () => core.listNamespacedConfigMap({ namespace, labelSelector: 'informed=yes' });
    const informer = k8s.makeInformer(config, `/api/v1/namespaces/${namespace}/configmaps`, list, 'informed=yes');
    const seen = [];
    for (const verb of ['add', 'update', 'delete']) informer.on(verb, (object) => seen.push(`${verb} ${object.metadata.name}`));
    let failure;
    informer.on('error', (error) => (failure = error));
    await informer.start();
    await core.createNamespacedConfigMap({ namespace, body: configMap('new', {}, { informed: 'yes' }) });
    await core.patchNamespacedConfigMap({ name: 'new', namespace, body: { data: { a: '1' } } }, as(k8s.PatchStrategy.MergePatch));
    // Leaving the selection is a deletion.
    await core.patchNamespacedConfigMap(
      { name: 'known', namespace, body: { metadata: { labels: { informed: null } } } },
      as(k8s.PatchStrategy.MergePatch),
    );
    await eventually('every event', () => seen.length >= 4 || failure);
    assert.deepEqual([seen, failure], [['add known', 'add new', 'update new', 'delete known'], undefined]);
    assert.deepEqual(informer.list(namespace).map((item) => item.metadata.name), ['new']);
    await informer.stop();
  });
});

suite('pods', () => {
  before(async () => {
    const command = 'mkdir /w; echo served > /w/index.html; httpd -p 8080 -h /w; echo ready; while read x; do echo got $x; done; sleep 999';
    await core.createNamespacedPod({ namespace, body: pod('main', command, { app: 'main' }) });
    await eventually('running', async () => (await core.readNamespacedPod({ name: 'main', namespace })).status.phase === 'Running');
  });

  /** Runs a command and gives what it wrote and its status. */
  async function exec(command, stdin = null, tty = false) {
    const [stdout, stderr] = [sink(), sink()];
    let status;
    await new k8s.Exec(config).exec(namespace, 'main', 'main', command, stdout, stderr, stdin, tty, (s) => (status = s));
    await eventually(`the end of ${command}`, () => status);
    return { stdout: stdout.text, stderr: stderr.text, status };
  }

  test('exec', async () => {
    const { stdout, stderr, status } = await exec(['sh', '-c', 'echo out; echo err >&2; exit 3']);
    assert.deepEqual([stdout, stderr, status.status, status.reason], ['out\n', 'err\n', 'Failure', 'NonZeroExitCode']);
    assert.equal(status.details.causes[0].message, '3');
    assert.equal((await exec(['true'])).status.status, 'Success');
    const large = await exec(['sh', '-c', 'head -c 2000000 /dev/zero | tr "\\0" x']);
    assert.equal(large.stdout.length, 2_000_000);
    // The client tells of the end of its input, which the fifth version of the protocol allows.
    assert.equal((await exec(['cat'], Readable.from(['from ', 'stdin']))).stdout, 'from stdin');
  });

  test('copying files', async () => {
    const here = fs.mkdtempSync(path.join(os.tmpdir(), 'trial-'));
    await new k8s.Cp(config).cpFromPod(namespace, 'main', 'main', 'w/index.html', here, '/');
    const copied = path.join(here, 'w/index.html');
    await eventually('the copy', () => fs.existsSync(copied) && fs.readFileSync(copied, 'utf8') === 'served\n');
    fs.rmSync(here, { recursive: true });
  });

  test('attach', async () => {
    const [stdout, stdin] = [sink(), new PassThrough()];
    const socket = await new k8s.Attach(config).attach(namespace, 'main', 'main', stdout, null, stdin, false);
    stdin.write('hello\n');
    await eventually('its answer', () => stdout.text.includes('got hello'));
    socket.close();
  });

  test('logs', async () => {
    await core.createNamespacedPod({ namespace, body: pod('ticks', 'for i in 1 2 3; do echo tick $i; sleep 0.3; done') });
    const started = async () => ['Running', 'Succeeded'].includes((await core.readNamespacedPod({ name: 'ticks', namespace })).status.phase);
    await eventually('started', started);
    const output = sink();
    await new k8s.Log(config).log(namespace, 'ticks', 'main', output, { follow: true, timestamps: true });
    await eventually('three ticks', () => output.text.split('\n').length === 4);
    assert.match(output.text, /^\d{4}-\d\d-\d\dT[0-9:.]+Z tick 1\n.* tick 2\n.* tick 3\n$/);
    const tail = await core.readNamespacedPodLog({ name: 'ticks', namespace, tailLines: 1 });
    assert.equal(tail, 'tick 3\n');
  });

  test('port forward', async () => {
    await eventually('ready', async () =>
      (await core.readNamespacedPod({ name: 'main', namespace })).status.conditions.some((c) => c.type === 'Ready' && c.status === 'True'),
    );
    const [output, errors, input] = [sink(), sink(), new PassThrough()];
    const socket = await new k8s.PortForward(config).portForward(namespace, 'main', [8080], output, errors, input);
    input.write('GET / HTTP/1.0\r\n\r\n');
    await eventually('the page', () => output.text.endsWith('served\n'));
    assert.equal(errors.text, '');
    socket.close();
    const failing = [sink(), sink()];
    await new k8s.PortForward(config).portForward(namespace, 'main', [9], ...failing, new PassThrough());
    await eventually('the error', () => failing[1].text.includes('refused'));
  });
});
