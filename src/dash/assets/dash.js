// Keeps a page up to date, and makes it quick to use by keyboard: takes what the server rendered and changes only what
// differs, so that focus, scroll position and selection stay. Without it every page is complete and works; it only does not move.
"use strict";

const updates = (() => {
  const url = document.body.dataset.events;
  const toggle = document.getElementById("pause");
  if (!url || !window.EventSource) return null;
  const STALE_AFTER = 10;
  const AGAIN_AFTER = 10000;
  let source = null;
  let heardAt = Date.now();
  let heard = false;
  let paused = false;
  let again = null;

  const sameKind = (a, b) => a.nodeType === b.nodeType && a.nodeName === b.nodeName && a.id === b.id;

  // what the reader has opened stays open
  const kept = (old, name) => name === "open" && old.nodeName === "DETAILS";

  const patch = (old, fresh) => {
    if (old.nodeType === Node.TEXT_NODE) {
      if (old.data !== fresh.data) old.data = fresh.data;
      return;
    }
    if (old.nodeType !== Node.ELEMENT_NODE) return;
    for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name) && !kept(old, name)) old.removeAttribute(name);
    for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    const wanted = [...fresh.childNodes];
    wanted.forEach((node, at) => {
      const there = old.childNodes[at];
      if (!there) old.append(node);
      else if (sameKind(there, node)) patch(there, node);
      else there.replaceWith(node);
    });
    while (old.childNodes.length > wanted.length) old.lastChild.remove();
  };

  const show = (event) => {
    heardAt = Date.now();
    heard = true;
    const fresh = document.createElement("template");
    fresh.innerHTML = event.data;
    for (const part of [...fresh.content.children]) {
      const old = document.getElementById(part.id);
      if (old) patch(old, part);
    }
    age();
  };

  // by the reader's own clock: a server that says nothing cannot say how old that is
  const age = () => {
    const seconds = Math.round((Date.now() - heardAt) / 1000);
    const stale = seconds >= STALE_AFTER;
    document.getElementById("health").classList.toggle("old", stale || paused);
    const shown = document.getElementById("age");
    const words = [paused ? "updates paused" : "", stale ? `Data ${seconds} s old` : heard && source ? "live" : ""];
    const text = words.filter(Boolean).map((word) => ` · ${word}`).join("");
    if (shown && shown.textContent !== text) shown.textContent = text;
  };

  const open = () => {
    clearTimeout(again);
    if (source || paused) return;
    source = new EventSource(url);
    source.addEventListener("page", show);
    source.addEventListener("error", () => {
      // a refused stream does not come back by itself
      if (source && source.readyState === EventSource.CLOSED) {
        source = null;
        again = setTimeout(open, AGAIN_AFTER);
      }
    });
  };

  const close = () => {
    clearTimeout(again);
    if (source) source.close();
    source = null;
  };

  const pause = () => {
    paused = !paused;
    toggle.setAttribute("aria-pressed", String(paused));
    follow();
  };

  // tabs that nobody sees cost nothing
  const follow = () => { if (document.hidden || paused) close(); else open(); age(); };
  document.addEventListener("visibilitychange", follow);
  window.addEventListener("pagehide", close);
  window.addEventListener("pageshow", follow);
  toggle.addEventListener("click", pause);
  toggle.hidden = false;
  setInterval(age, 1000);
  follow();
  return { pause };
})();

(() => {
  const THEMES = ["", "dark", "light"];
  const SECOND_KEY_WITHIN = 1500;
  const help = document.getElementById("help");
  const root = document.documentElement;
  let wentAt = 0;

  const theme = () => {
    const chosen = THEMES[(THEMES.indexOf(root.dataset.theme ?? "") + 1) % THEMES.length];
    if (chosen) root.dataset.theme = chosen;
    else delete root.dataset.theme;
    try {
      if (chosen) localStorage.setItem("lanes-theme", chosen);
      else localStorage.removeItem("lanes-theme");
    } catch {
      // it holds for this page only
    }
  };

  // the first link of each row: to be on it is to be on the row, and Enter opens it
  const step = (by) => {
    const rows = [...document.querySelectorAll("main tbody tr")].map((row) => row.querySelector("a[href]")).filter(Boolean);
    const at = rows.findIndex((link) => link.closest("tr").contains(document.activeElement));
    const to = at < 0 ? (by > 0 ? 0 : rows.length - 1) : Math.min(Math.max(at + by, 0), rows.length - 1);
    rows[to]?.focus();
  };

  const find = () => {
    const box = document.getElementById("q") ?? document.querySelector("main form[role=search] input");
    if (box) box.focus();
    else location.assign(document.querySelector("nav a[data-key=j]").href + "#q");
  };

  const go = (key) => document.querySelector(`nav a[data-key="${CSS.escape(key)}"]`)?.click();

  const KEYS = {
    "/": find,
    "?": () => help?.showModal(),
    j: () => step(1),
    k: () => step(-1),
    p: () => updates?.pause(),
    t: theme,
  };

  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest?.("input, select, textarea, [contenteditable]");
    if (typing || help?.open || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    const second = Date.now() - wentAt < SECOND_KEY_WITHIN;
    wentAt = event.key === "g" && !second ? Date.now() : 0;
    if (second) {
      go(event.key);
      event.preventDefault();
    } else if (Object.hasOwn(KEYS, event.key)) {
      event.preventDefault();
      KEYS[event.key]();
    }
  });

  const button = (id, act) => {
    const found = document.getElementById(id);
    if (!found) return;
    found.hidden = false;
    found.addEventListener("click", act);
  };
  button("theme", theme);
  button("keys", () => help?.showModal());
  if (location.hash === "#q") document.getElementById("q")?.focus();
})();
