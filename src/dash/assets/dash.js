// Keeps a page up to date: takes what the server rendered and changes only what differs, so that focus, scroll position
// and selection stay. Without it every page is complete and works; it only does not move.
"use strict";

(() => {
  const url = document.body.dataset.events;
  if (!url || !window.EventSource) return;
  const STALE_AFTER = 10;
  const AGAIN_AFTER = 10000;
  let source = null;
  let heardAt = Date.now();
  let heard = false;
  let again = null;

  const sameKind = (a, b) => a.nodeType === b.nodeType && a.nodeName === b.nodeName && a.id === b.id;

  const patch = (old, fresh) => {
    if (old.nodeType === Node.TEXT_NODE) {
      if (old.data !== fresh.data) old.data = fresh.data;
      return;
    }
    if (old.nodeType !== Node.ELEMENT_NODE) return;
    for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
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

  const age = () => {
    const seconds = Math.round((Date.now() - heardAt) / 1000);
    const health = document.getElementById("health");
    const shown = document.getElementById("age");
    const stale = seconds >= STALE_AFTER;
    health.classList.toggle("old", stale);
    if (shown) shown.textContent = stale ? ` · ${seconds} s old` : heard && source ? " · live" : "";
  };

  const open = () => {
    clearTimeout(again);
    if (source) return;
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

  // tabs that nobody sees cost nothing
  const follow = () => { if (document.hidden) close(); else open(); age(); };
  document.addEventListener("visibilitychange", follow);
  window.addEventListener("pagehide", close);
  window.addEventListener("pageshow", follow);
  setInterval(age, 1000);
  follow();
})();
