// Each workspace of clients/ holds one version; a package is loaded from the one that was asked for.
import { createRequire } from 'node:module';

export function packageOf(version, name) {
  return createRequire(new URL(`./clients/${version}/package.json`, import.meta.url))(name);
}
