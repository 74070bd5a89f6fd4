// node panel.mjs <url of the panel> <chromium> <directory for pictures>: uses the page as people do, with mouse and keyboard.
import assert from 'node:assert/strict';
import { chromium } from 'playwright-core';

const [url, executablePath, pictures] = process.argv.slice(2);
const browser = await chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-gpu'] });
const faults = [];

async function opened(colorScheme, width = 1200) {
  const page = await browser.newPage({ colorScheme, viewport: { width, height: 800 } });
  page.setDefaultTimeout(8000);
  // A refused call is shown by the page and also noted by the browser; everything else it notes is a fault.
  page.on('console', (message) => message.type() === 'error' && !/status of 4\d\d/.test(message.text()) && faults.push(message.text()));
  page.on('pageerror', (error) => faults.push(String(error)));
  await page.goto(url);
  await page.locator('#list button').first().waitFor();
  return page;
}
async function choose(page, name) {
  await page.getByRole('button', { name, exact: true }).click();
  // The page hears of the new address a moment after the click.
  await page.getByRole('heading', { name: name.split(',')[0], exact: true }).waitFor();
}
const result = (page) => page.locator('.result').textContent();
async function outcome(page, word) {
  await page.locator('.status .word', { hasText: word }).waitFor();
  return result(page);
}

const steps = {
  async 'lists every procedure with its types and documentation'(page) {
    assert.equal(await page.locator('#list button').count(), 17);
    await choose(page, 'hello, query');
    assert.equal(await page.locator('.doc').textContent(), 'Always says "world".');
    assert.equal(await page.locator('.gives').textContent(), 'string');
  },
  async 'calls a query'(page) {
    await choose(page, 'hello, query');
    await page.getByRole('button', { name: 'Call' }).click();
    assert.equal(await outcome(page, '200'), '"world"');
  },
  async 'makes a form of the types and sends it'(page) {
    await choose(page, 'add, mutation');
    await page.getByLabel('a', { exact: true }).fill('1');
    await page.getByRole('button', { name: 'Call' }).click();
    assert.equal(await page.getByRole('alert').textContent(), 'b has to be a number.');
    await page.getByLabel('b', { exact: true }).fill('2.5');
    await page.getByRole('button', { name: 'Call' }).click();
    assert.equal(await outcome(page, '200'), '3.5');
  },
  async 'takes JSON instead of the form'(page) {
    await choose(page, 'post.byId, query');
    await page.getByRole('button', { name: 'JSON' }).click();
    await page.getByLabel('input as JSON').fill('"7"');
    await page.getByRole('button', { name: 'Call' }).click();
    assert.deepEqual(JSON.parse(await outcome(page, '200')), { id: '7' });
  },
  async 'shows a refusal'(page) {
    await choose(page, 'fail, query');
    await page.getByRole('button', { name: 'Call' }).click();
    assert.equal(JSON.parse(await outcome(page, '401 UNAUTHORIZED')).message, 'nope');
  },
  async 'shows a live subscription and stops it'(page) {
    await choose(page, 'forever, subscription');
    await page.getByRole('button', { name: 'Subscribe' }).click();
    await page.locator('.result', { hasText: '\n9\n' }).waitFor();
    await page.getByRole('button', { name: 'Stop' }).click();
    assert.match(await outcome(page, 'Stopped'), /^0\n1\n2\n/);
  },
  async 'resumes a subscription whose connection was dropped'(page) {
    await choose(page, 'sub, subscription');
    await page.getByRole('button', { name: 'Subscribe' }).click();
    assert.equal(await outcome(page, 'Ended'), ['0', '1', '2', '3'].map((id) => `${id}  {"i":${id}}`).join('\n'));
  },
  async 'shows the values of a query that streams'(page) {
    await choose(page, 'count, query');
    await page.getByLabel('to', { exact: true }).fill('3');
    await page.getByLabel('Give fails').check();
    await page.getByLabel('fails', { exact: true }).check();
    await page.getByRole('button', { name: 'Call' }).click();
    assert.match(await outcome(page, 'CONFLICT'), /^0\n1\n2\n/);
  },
  async 'works by keyboard alone'(page) {
    await page.keyboard.press('/');
    await page.keyboard.type('add');
    await page.keyboard.press('Enter');
    await page.getByRole('heading', { name: 'add' }).waitFor();
    const seen = new Set();
    for (let step = 0; step < 12 && !seen.has('a'); step++) {
      await page.keyboard.press('Tab');
      seen.add(await page.evaluate(() => document.activeElement.getAttribute('aria-label')));
    }
    await page.keyboard.type('20');
    await page.keyboard.press('Tab');
    await page.keyboard.type('22');
    await page.keyboard.press('Control+Enter');
    assert.equal(await outcome(page, '200'), '42');
    const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
    assert.equal(outline, 'solid');
  },
};

// The contrast of every visible text with what it stands on, as the accessibility guidelines measure it.
async function faintTexts(page) {
  return page.evaluate(() => {
    const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
    const rgba = (color) => {
      canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
      return [...canvas.getImageData(0, 0, 1, 1).data];
    };
    const light = ([r, g, b]) => [r, g, b].map((v) => v / 255).map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
      .reduce((sum, v, index) => sum + v * [0.2126, 0.7152, 0.0722][index], 0);
    const ground = (element) => {
      for (let each = element; each; each = each.parentElement) {
        const color = rgba(getComputedStyle(each).backgroundColor);
        if (color[3] > 250) return color;
      }
      return [255, 255, 255];
    };
    return [...document.querySelectorAll('body *')].filter((element) => element.checkVisibility() && [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim()))
      .map((element) => {
        const [a, b] = [light(rgba(getComputedStyle(element).color)), light(ground(element))].sort((x, y) => y - x);
        return [element.className || element.tagName, Math.round(((a + 0.05) / (b + 0.05)) * 100) / 100];
      }).filter(([, ratio]) => ratio < 4.5);
  });
}

for (const scheme of ['light', 'dark']) {
  const page = await opened(scheme);
  for (const [name, step] of Object.entries(steps)) {
    let failure = null;
    await page.goto(url);
    await page.reload();
    await page.locator('#list button').first().waitFor();
    try { await step(page); } catch (error) { failure = String(error.message).slice(0, 500); }
    console.log(JSON.stringify({ scheme, step: name, failure }));
  }
  const faint = await faintTexts(page);
  console.log(JSON.stringify({ scheme, step: 'is readable', failure: faint.length ? JSON.stringify(faint) : null }));
  await page.screenshot({ path: `${pictures}/panel-${scheme}.png` });
  await page.close();
}
const narrow = await opened('light', 390);
await choose(narrow, 'count, query');
const overflow = await narrow.evaluate(() => document.documentElement.scrollWidth - innerWidth);
await narrow.screenshot({ path: `${pictures}/panel-narrow.png` });
console.log(JSON.stringify({ scheme: 'light', step: 'fits a narrow window', failure: overflow > 0 ? `${overflow} px too wide` : null }));
console.log(JSON.stringify({ scheme: 'both', step: 'leaves nothing in the console', failure: faults.length ? faults.join('; ').slice(0, 500) : null }));
await browser.close();
