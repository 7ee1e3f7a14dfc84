// The load tests of `make load SCENARIO=…`. Requests arrive at a rate of their own, whether or not earlier ones were answered: a
// service that slows down does not slow its clients down. Latency counts from when a request was sent; what k6 could not send
// for want of a virtual user is `dropped_iterations`, and fails the run.
import { check, sleep } from 'k6';
import exec from 'k6/execution';
import http from 'k6/http';

const url = __ENV.URL || 'http://127.0.0.1:8080';
const control = __ENV.CONTROL;
const rate = Number(__ENV.RATE || 100);
const scenario = __ENV.SCENARIO || 'steady';

// Service level objectives: what the middle, the slow and the slowest client may wait, in milliseconds.
const objectives = ['p(50)<100', 'p(95)<500', 'p(99)<1000'];

// Virtual users are there from the beginning: to make one while a spike begins takes k6 too long.
const arriving = (peak, options) => ({
    timeUnit: '1s',
    preAllocatedVUs: Math.max(50, peak),
    maxVUs: Math.max(100, 5 * peak),
    gracefulStop: '5s',
    ...options,
});
const constant = (duration, options) =>
    arriving(2 * rate, { executor: 'constant-arrival-rate', rate, duration: __ENV.DURATION || duration, ...options });

const plans = {
    // What a day looks like.
    steady: { run: { load: constant('60s', { exec: 'shop' }) } },
    // Ten times as much within a second, for a while, and back. Refusals are allowed, slow or wrong answers are not.
    spike: {
        refusals: true,
        run: {
            load: arriving(10 * rate, {
                executor: 'ramping-arrival-rate',
                exec: 'shop',
                startRate: rate,
                stages: [
                    { target: rate, duration: '15s' },
                    { target: 10 * rate, duration: '1s' },
                    { target: 10 * rate, duration: '20s' },
                    { target: rate, duration: '1s' },
                    { target: rate, duration: '15s' },
                ],
            }),
        },
    },
    // What leaks shows after a long time only: DURATION=8h.
    soak: { run: { load: constant('30m', { exec: 'shop' }) } },
    // All ask for the same product, each second for one that nobody has asked for before.
    stampede: { run: { load: constant('60s', { exec: 'stampede' }) } },
    // Redis is away for the second third of a minute: the catalogue goes on, sessions say 503 and when to come back.
    loss: {
        refusals: true,
        run: {
            load: constant('60s', { exec: 'shop' }),
            fault: {
                executor: 'per-vu-iterations', exec: 'lose', vus: 1, iterations: 1, startTime: '20s', maxDuration: '5s',
            },
            repair: {
                executor: 'per-vu-iterations', exec: 'find', vus: 1, iterations: 1, startTime: '40s', maxDuration: '5s',
            },
        },
    },
};
const plan = plans[scenario];
if (!plan) throw new Error(`SCENARIO is one of ${Object.keys(plans).join(', ')}`);
if (plan.run.fault && !control) throw new Error('the faults of this scenario are devstack\'s: CONTROL is its address');

export const options = {
    scenarios: plan.run,
    summaryTrendStats: ['med', 'p(50)', 'p(95)', 'p(99)', 'max'],
    thresholds: {
        'http_req_duration{kind:read}': objectives,
        'http_req_duration{kind:order}': objectives,
        // Right, or refused in the way that is promised: see `fits`.
        checks: ['rate>0.999'],
        dropped_iterations: ['count<1'],
        // What was refused is no answer; here it only is told.
        http_req_failed: plan.refusals ? ['rate<0.6'] : ['rate<0.001'],
    },
};

const quiet = { tags: { kind: 'setup' } };
const json = { 'Content-Type': 'application/json', 'Sec-Fetch-Site': 'same-origin' };

// What `holdfast seed --dev-accounts` has made.
function signIn(name) {
    const account = JSON.stringify({ email: `${name}@holdfast.test`, password: `${name}-of-holdfast` });
    let session;
    // One that has just started may be too busy for a password.
    for (let attempt = 0; attempt < 10 && (!session || session.status === 503); attempt += 1) {
        if (session) sleep(1);
        session = http.post(`${url}/v1/session`, account, { ...quiet, headers: json });
    }
    if (session.status !== 201) throw new Error(`${name} cannot sign in: ${session.status} ${session.body}`);
    return session.headers['Set-Cookie'].split(';')[0];
}

export function setup() {
    // The stampede is for products that have not just been cached by being restocked.
    const sort = scenario === 'stampede' ? 'price' : 'newest';
    const fields = 'id,sku,name,description,category,price_cents';
    const page = http.get(`${url}/v1/products?limit=100&sort=${sort}&fields=${fields}`, quiet);
    const products = page.json('items');
    if (scenario !== 'stampede') restock(products);
    return { products: products.map((product) => product.id), cookie: signIn('customer') };
}

// What is sold out is refused, and that is not what is measured.
function restock(products) {
    const headers = { ...json, Cookie: signIn('staff'), 'If-Match': '*' };
    for (const { id, ...product } of products) {
        const answer = http.put(`${url}/v1/products/${id}`, JSON.stringify({ ...product, stock: 1000000 }), { ...quiet, headers });
        if (answer.status !== 200) throw new Error(`cannot restock: ${answer.status} ${answer.body}`);
    }
}

// The answer that was wanted, or 503 with the time after which to ask again.
function fits(answer, wanted) {
    const refused = plan.refusals && (answer.status === 503 || answer.status === 429) && answer.headers['Retry-After'];
    check(answer, { fits: () => answer.status === wanted || Boolean(refused) });
}

const any = (list) => list[Math.floor(Math.random() * list.length)];

// Seven reads of a product, two of a page, one order.
export function shop({ products, cookie }) {
    const dice = Math.random();
    if (dice < 0.7) {
        fits(http.get(`${url}/v1/products/${any(products)}`, { tags: { kind: 'read', name: 'product' } }), 200);
    } else if (dice < 0.9) {
        fits(http.get(`${url}/v1/products?limit=20`, { tags: { kind: 'read', name: 'page' } }), 200);
    } else {
        const order = JSON.stringify({ lines: [{ product_id: any(products), quantity: 1 }] });
        const key = `${exec.vu.idInTest}-${exec.scenario.iterationInTest}-${Date.now()}`;
        const headers = { ...json, 'Idempotency-Key': key, Cookie: cookie };
        fits(http.post(`${url}/v1/orders`, order, { headers, tags: { kind: 'order', name: 'order' } }), 201);
    }
}

export function stampede({ products }) {
    const product = products[Math.floor((Date.now() - exec.scenario.startTime) / 1000) % products.length];
    fits(http.get(`${url}/v1/products/${product}`, { tags: { kind: 'read', name: 'product' } }), 200);
}

export function lose() {
    http.put(`${control}/proxies/redis`, '[{"fault": "down"}]', { tags: { kind: 'control' } });
}

export function find() {
    http.del(`${control}/proxies/redis`, null, { tags: { kind: 'control' } });
}

// One row for RESULTS.md, and the verdict.
export function handleSummary({ metrics }) {
    const value = (metric, key) => (metrics[metric] ? metrics[metric].values[key] : undefined);
    const ms = (kind) => ['p(50)', 'p(95)', 'p(99)']
        .map((key) => value(`http_req_duration{kind:${kind}}`, key))
        .map((number) => (number ? number.toFixed(1) : '–'))
        .join(' / ');
    const failed = [];
    for (const [name, metric] of Object.entries(metrics)) {
        for (const [threshold, result] of Object.entries(metric.thresholds || {})) {
            if (!result.ok) failed.push(`${name} ${threshold}`);
        }
    }
    const percent = (part) => `${(100 * (part || 0)).toFixed(2)} %`;
    const row = [
        scenario, `${rate}/s`, value('http_reqs', 'count'), ms('read'), ms('order'),
        percent(value('http_req_failed', 'rate')), percent(value('checks', 'rate')), value('dropped_iterations', 'count') || 0,
        failed.length ? `no: ${failed.join(', ')}` : 'yes',
    ];
    const line = `| ${row.join(' | ')} |\n`;
    const files = { stdout: line };
    if (__ENV.ROW) files[__ENV.ROW] = line;
    return files;
}
