// What PM2 keeps running: `pm2 start ecosystem.config.cjs`, after `oplata migrate`. The processes are oplata's own; there is
// no Node in them. Settings come from oplata.toml, .env and the environment, as everywhere.
//
//   OPLATA_BIN       where the command lies, when it is not on PATH
//   OPLATA_CWD       the directory with oplata.toml, and where the spool lies
//   OPLATA_WORKERS   how many workers; 4 without it
const path = require('node:path');

const cwd = process.env.OPLATA_CWD || process.cwd();
const workers = Number(process.env.OPLATA_WORKERS || 4);
const metricsBase = Number(process.env.OPLATA_METRICS_PORT || 9464);
// These three are this file's; oplata would refuse settings that it does not know.
const { OPLATA_BIN: bin = 'oplata', OPLATA_CWD, OPLATA_WORKERS, ...env } = process.env;

const app = (name, args, metricsPort, extra = {}) => ({
  name,
  script: bin.includes('/') ? path.resolve(bin) : bin,
  args,
  cwd,
  env: { ...env, OPLATA_METRICS_PORT: String(metricsPort) },
  filter_env: ['OPLATA_BIN', 'OPLATA_CWD', 'OPLATA_WORKERS'],
  interpreter: 'none',
  // SIGINT goes to the command alone, which passes it on; then it may drain: idle connections, requests, the batch in hand.
  treekill: false,
  kill_timeout: 60000,
  // A process that ends is started again, for ever: at first at once, then at longer intervals of up to 15 s.
  autorestart: true,
  exp_backoff_restart_delay: 100,
  merge_logs: true,
  ...extra,
});

module.exports = {
  apps: [
    // Metrics and health have a port for each process: serve's two have 9464 and 9465, relay 9469, the workers 9471 and on.
    app('oplata-serve', ['serve', '--processes', '2'], metricsBase),
    // Without [[sinks]] there is nobody to tell, and starting again would not mend that.
    app('oplata-relay', ['relay'], metricsBase + 5, { stop_exit_codes: [2] }),
    ...Array.from({ length: workers }, (_, at) => app(`oplata-worker-${at + 1}`, ['worker'], metricsBase + 7 + at)),
  ],
};
