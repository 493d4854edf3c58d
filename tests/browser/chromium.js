// Drives Chromium over its debugging pipe, without any package. Whoever requires this has one, until the process ends.
"use strict";

const { spawn } = require("node:child_process");
const { mkdtempSync, rmSync, writeFileSync } = require("node:fs");
const { tmpdir } = require("node:os");
const { join } = require("node:path");

const PATIENCE = 20000;

const profile = mkdtempSync(join(tmpdir(), "lanes-browser-"));
const flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars", "--disable-background-networking"];
const browser = spawn("chromium", [...flags, "--remote-debugging-pipe", `--user-data-dir=${profile}`, "about:blank"], {
  stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"],
  detached: true, // a group of its own: its helpers go with it, and write nothing into the profile that is removed
});
browser.on("error", (error) => fail(`chromium cannot be started (apt-get install chromium): ${error.message}`));
process.on("exit", () => {
  if (browser.pid) {
    process.kill(-browser.pid, "SIGKILL");
  }
  rmSync(profile, { recursive: true, force: true, maxRetries: 20 });
});

function fail(text) {
  console.log(text);
  process.exit(1);
}

let last = 0;
const waiting = new Map();
const listeners = new Set();
let rest = "";
browser.stdio[4].setEncoding("utf8");
browser.stdio[4].on("data", (chunk) => {
  const messages = (rest + chunk).split("\0");
  rest = messages.pop();
  for (const message of messages.map((text) => JSON.parse(text))) {
    const answer = waiting.get(message.id);
    waiting.delete(message.id);
    if (!answer) listeners.forEach((listener) => listener(message));
    else if (message.error) answer.reject(new Error(`${answer.method}: ${message.error.message}`));
    else answer.resolve(message.result);
  }
});

const send = (method, params = {}, sessionId = undefined) =>
  new Promise((resolve, reject) => {
    const id = ++last;
    waiting.set(id, { method, resolve, reject });
    browser.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
  });

// A tab, what it says and whom it asks.
async function open() {
  const { targetId } = await send("Target.createTarget", { url: "about:blank" });
  const { sessionId } = await send("Target.attachToTarget", { targetId, flatten: true });
  const tab = { call: (method, params) => send(method, params, sessionId), said: [], asked: [] };
  listeners.add(({ method, params, sessionId: from }) => {
    if (from !== sessionId) return;
    if (method === "Runtime.consoleAPICalled") tab.said.push(params.args.map((arg) => arg.value).join(" "));
    if (method === "Runtime.exceptionThrown") tab.said.push(params.exceptionDetails.text);
    if (method === "Log.entryAdded") tab.said.push(params.entry.text);
    if (method === "Network.requestWillBeSent") tab.asked.push(params.request.url);
  });
  for (const domain of ["Page", "Runtime", "Log", "Network"]) await tab.call(`${domain}.enable`);
  tab.ask = async (expression) => {
    const { result } = await tab.call("Runtime.evaluate", { expression, awaitPromise: true, returnByValue: true });
    return result.value;
  };
  tab.until = async (expression, most) => {
    const began = Date.now();
    while (Date.now() - began < most) {
      if (await tab.ask(expression).catch(() => false)) return true;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    return false;
  };
  tab.go = async (url) => {
    await tab.call("Page.navigate", { url });
    return tab.until(`location.pathname !== "blank" && document.readyState === "complete"`, PATIENCE);
  };
  // Of the whole page, or of what a window shows.
  tab.picture = async (file, whole = true) => {
    const { data } = await tab.call("Page.captureScreenshot", { captureBeyondViewport: whole });
    writeFileSync(file, Buffer.from(data, "base64"));
  };
  return tab;
}

setTimeout(() => fail("the browser did not come to an end in five minutes"), 300000).unref();
module.exports = { fail, open };
