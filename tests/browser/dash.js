// Looks at a dashboard with a real browser, without any package: Chromium is spoken to over its debugging pipe.
//
//   node tests/browser/dash.js URL DIRECTORY [AXE]
//
// Every page, light and dark, at 1200 and 375 px: it becomes live, says nothing on the console, asks nobody else, does not
// overflow. A picture of each is left in DIRECTORY. With AXE, the path of axe.min.js, accessibility is checked too.
// Prints what is wrong, one line each, and ends with 1 if anything is.
"use strict";

const { mkdirSync, readFileSync } = require("node:fs");
const { gzipSync } = require("node:zlib");
const { join } = require("node:path");
const { fail, open } = require("./chromium.js");

const [base, directory, axe] = process.argv.slice(2);
const LIVE_WITHIN = 5000;
const GZIP_MAX = 60 * 1024;
const VIEWS = [
  { name: "light", width: 1200, scheme: "light" },
  { name: "dark", width: 1200, scheme: "dark" },
  { name: "light-375", width: 375, scheme: "light" },
  { name: "dark-375", width: 375, scheme: "dark" },
];
const problems = [];

// An address of the dashboard.
const at = (path) => new URL(path, base).href;

async function look(tab, path, view) {
  const where = `${path} ${view.name}`;
  await tab.go(at("/healthz"));
  await tab.go(at(path));
  const live = `document.getElementById("age")?.textContent.includes("live")`;
  if (!(await tab.until(live, LIVE_WITHIN))) problems.push(`${where}: not live within ${LIVE_WITHIN} ms`);
  const wide = await tab.ask("document.documentElement.scrollWidth - window.innerWidth");
  if (wide > 0) problems.push(`${where}: ${wide} px wider than the window`);
  const landmarks = await tab.ask(`document.querySelectorAll("main, h1").length`);
  if (landmarks !== 2) problems.push(`${where}: ${landmarks} of one main and one h1`);
  if (axe) {
    await tab.ask(`${readFileSync(axe, "utf8")}; true`);
    const found = await tab.ask(`axe.run().then((all) => all.violations.map((one) => one.id + ": " + one.nodes[0].html))`);
    for (const violation of found ?? ["axe did not run"]) problems.push(`${where}: ${violation}`);
  }
  const name = path.replace("?name=globex", "").replace(/[0-9a-f]{8}-[0-9a-f-]+/, "one").replace(/\W+/g, "-").replace(/^-|-$/g, "");
  await tab.picture(join(directory, `${name || "overview"}-${view.name}.png`));
}

// Keys lead where the help says they do.
async function keys(tab) {
  const size = { width: 1200, height: 900, deviceScaleFactor: 1, mobile: false };
  await tab.call("Emulation.setDeviceMetricsOverride", size);
  const press = async (key) => {
    await tab.call("Input.dispatchKeyEvent", { type: "keyDown", key, text: key.length === 1 ? key : undefined });
    await tab.call("Input.dispatchKeyEvent", { type: "keyUp", key });
  };
  const expect = async (what, expression) => {
    if (!(await tab.until(expression, LIVE_WITHIN))) problems.push(`keys: ${what}`);
  };
  await tab.go(at("/"));
  await press("g");
  await press("l");
  await expect("g l leads to the lanes", `location.pathname === "/lanes" && document.readyState === "complete"`);
  await expect("it is live", `document.getElementById("age")?.textContent.includes("live")`);
  await press("j");
  await expect("j is on the first row", `document.activeElement.closest("tr")?.rowIndex === 1`);
  await press("j");
  await press("k");
  await expect("k goes back", `document.activeElement.closest("tr")?.rowIndex === 1`);
  await press("p");
  await expect("p pauses updates", `document.getElementById("age").textContent.includes("updates paused")`);
  await press("p");
  await expect("p goes on", `!document.getElementById("age").textContent.includes("paused")`);
  await press("t");
  await expect("t is dark first", `document.documentElement.dataset.theme === "dark" && localStorage.getItem("lanes-theme") === "dark"`);
  await press("?");
  await expect("? opens the help", `document.getElementById("help").open`);
  await tab.ask(`document.getElementById("help").close(); true`);
  await press("/");
  await expect("/ leads to the filter of jobs", `location.pathname === "/jobs" && document.activeElement?.id === "q"`);
  const theme = await tab.ask("document.documentElement.dataset.theme");
  if (theme !== "dark") problems.push(`keys: the theme is not kept but ${theme}`);
  await tab.ask(`localStorage.removeItem("lanes-theme"); true`);
  await press("g");
  await press("o");
  const typed = await tab.ask(`document.activeElement.value`);
  if (typed !== "go") problems.push(`keys: what is typed into a box is ${typed}`);
}

// Whoever has no JavaScript can do everything: each act is pressed, and the page says that it is done.
async function acts(tab, job) {
  const press = async (what, text) => {
    const found = `[...document.querySelectorAll("main button, main a")].find((one) => one.textContent.trim().startsWith(${JSON.stringify(text)}))`;
    if (!(await tab.until(`document.readyState === "complete" && ${found}`, LIVE_WITHIN))) {
      problems.push(`${what}: nothing says ${text}: ${await tab.ask("document.querySelector('main').innerText.slice(0, 500)")}`);
      return false;
    }
    await tab.ask(`document.documentElement.dataset.before = "1"; ${found}.click(); true`);
    // the next page is another document
    if (await tab.until(`!document.documentElement.dataset.before && document.readyState === "complete"`, LIVE_WITHIN)) return true;
    problems.push(`${what}: ${text} leads nowhere`);
    return false;
  };
  const fill = (name, value) => tab.ask(`document.querySelector("main form.ask [name=${name}]").value = ${JSON.stringify(value)}; true`);
  const says = async (what, text) => {
    if (!(await tab.until(`document.querySelector("main").innerText.includes(${JSON.stringify(text)})`, LIVE_WITHIN))) {
      problems.push(`${what}: ${await tab.ask("document.querySelector('main').innerText.slice(0, 500)")}`);
    }
  };
  await tab.go(at("/lanes/bulk"));
  if ((await press("pause", "Pause")) && (await press("pause", "Pause lane bulk"))) await says("pause", "Paused. Workers follow");
  if (await press("resume", "Resume")) await says("resume", "Resumed. Workers follow");
  if (await press("calls at a time", "Change")) {
    await fill("calls", "3");
    if (await press("calls at a time", "Set it for lane bulk")) await says("calls at a time", "3 in each worker");
    if (await press("calls at a time", "Reset")) await says("calls at a time", "As many calls at a time as are configured");
  }
  await tab.go(at("/limits/set?endpoint=crm&tenant=globex"));
  await fill("limits", "500/1m");
  if (await press("limits", "Set the limits of")) await says("limits", "The limits are set");
  await tab.go(at("/limits/reset?endpoint=crm&tenant=globex"));
  if (await press("limits", "Reset the limits of")) await says("limits", "What was set is taken back");
  if (job.startsWith("/jobs/")) {
    await tab.go(at(job));
    if ((await press("discard", "Discard")) && (await press("discard", "Discard this dead letter"))) await says("discard", "the letter is deleted");
  }
  await tab.go(at("/ops/plan?action=retry"));
  if (await press("operation", "Retry")) {
    await says("operation", "Workers carry it out");
    const page = await tab.ask("location.pathname");
    for (let nth = 0; nth < 20 && !(await tab.ask("document.querySelector('main').innerText")).includes("✓ done"); nth += 1) {
      await new Promise((resolve) => setTimeout(resolve, 500));
      await tab.go(at(page));
    }
    await says("operation", "✓ done");
  }
  await tab.go(at("/audit"));
  for (const action of ["pause", "resume", "set concurrency", "set limits", "retry"]) await says("audit", action);
}

// Everything that makes pages look and move is small.
async function weigh(tab) {
  const texts = await tab.ask(`Promise.all([...document.querySelectorAll("link[rel=stylesheet], script[src]")]
    .map((one) => fetch(one.href ?? one.src).then((answer) => answer.text())))`);
  const bytes = (texts ?? []).reduce((sum, text) => sum + gzipSync(text).length, 0);
  if (!texts?.length || bytes > GZIP_MAX) problems.push(`script and style are ${bytes} bytes, gzipped`);
}

async function main() {
  mkdirSync(directory, { recursive: true });
  const tab = await open();
  await tab.go(at("/dead"));
  const job = await tab.ask(`document.querySelector("a[href^='/jobs/']")?.getAttribute("href") ?? "/jobs"`);
  const pages = ["/", "/lanes", "/lanes/bulk", "/jobs", job, "/limits", "/limits?endpoint=crm", "/dead", "/ops", "/workers",
    "/tenant?name=globex", "/audit", "/settings", "/help", "/pause?lane=bulk", "/ops/plan?action=retry"];
  for (const view of VIEWS) {
    const size = { width: view.width, height: 900, deviceScaleFactor: 1, mobile: view.width < 600 };
    await tab.call("Emulation.setDeviceMetricsOverride", size);
    await tab.call("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value: view.scheme }] });
    for (const path of pages) await look(tab, path, view);
  }
  await keys(tab);
  await weigh(tab);
  await tab.go(at("/"));
  await tab.call("Input.dispatchKeyEvent", { type: "keyDown", key: "Tab", code: "Tab", windowsVirtualKeyCode: 9 });
  const first = await tab.ask("document.activeElement.className");
  if (first !== "skip") problems.push(`the first stop of the keyboard is not the skip link but ${first}`);
  await tab.call("Emulation.setScriptExecutionDisabled", { value: true });
  await tab.go(at("/"));
  const without = await tab.ask(`document.querySelectorAll(".card .value").length`);
  if (without !== 5) problems.push(`without JavaScript there are ${without} cards`);
  await acts(tab, job);
  const own = new URL(base).origin;
  for (const url of tab.asked.filter((url) => !url.startsWith(own))) problems.push(`asked elsewhere: ${url}`);
  for (const text of tab.said) problems.push(`on the console: ${text}`);
  problems.forEach((problem) => console.log(problem));
  process.exit(problems.length ? 1 : 0);
}

main().catch((error) => fail(String(error)));
