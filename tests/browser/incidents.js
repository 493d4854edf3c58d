// Opens overviews in a real browser: each has to show its incident, with a way on, within five seconds.
//
//   node tests/browser/incidents.js DIRECTORY < SCENES
//
// SCENES: JSON, [{name, url, says: [part, ..]}, ..]. Pictures of each, light and dark, are left in DIRECTORY. Prints what is wrong, one line each,
// and ends with 1 if anything is.
"use strict";

const { mkdirSync, readFileSync, writeFileSync } = require("node:fs");
const { join } = require("node:path");
const { fail, open } = require("./chromium.js");

const SHOWN_WITHIN = 5000;
const [directory] = process.argv.slice(2);
const scenes = JSON.parse(readFileSync(0, "utf8"));

// The row of the incident that says all parts in their order, and what can be pressed there.
const find = (says) => `(() => {
  const says = ${JSON.stringify(says)};
  const rows = [...document.querySelectorAll("main .incidents > *")];
  const row = rows.find((row) => {
    let at = 0;
    return says.every((part) => (at = row.textContent.indexOf(part, at)) >= 0 && (at += part.length, true));
  });
  return row ? { steps: row.querySelectorAll("a, button, code").length } : null;
})()`;

async function main() {
  mkdirSync(directory, { recursive: true });
  const problems = [];
  const tab = await open();
  const size = { width: 1200, height: 820, deviceScaleFactor: 1, mobile: false };
  await tab.call("Emulation.setDeviceMetricsOverride", size);
  for (const { name, url, says } of scenes) {
    const began = Date.now();
    await tab.go(url);
    const shown = await tab.until(`${find(says)} !== null`, SHOWN_WITHIN - (Date.now() - began));
    const took = Date.now() - began;
    if (!shown) problems.push(`${name}: nothing says ${says.join("…")} within ${SHOWN_WITHIN} ms: ${await tab.ask("document.body.innerText")}`);
    else if (took > SHOWN_WITHIN) problems.push(`${name}: it took ${took} ms`);
    else if ((await tab.ask(find(says))).steps === 0) problems.push(`${name}: nothing to press`);
    for (const scheme of ["light", "dark"]) {
      await tab.call("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value: scheme }] });
      await tab.picture(join(directory, `incident-${name}-${scheme}.png`), false);
    }
  }
  for (const text of tab.said) problems.push(`on the console: ${text}`);
  problems.forEach((problem) => console.log(problem));
  process.exit(problems.length ? 1 : 0);
}

main().catch((error) => fail(String(error)));
