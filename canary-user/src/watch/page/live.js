// Keeps the page up to date: server-sent events say when, and the server sends the new part as HTML.
"use strict";
(() => {
  const main = document.getElementById("now");
  const live = document.getElementById("live");
  const told = document.getElementById("told");
  const query = new URLSearchParams(location.search);
  let busy = false, again = false, last = 0;

  const say = (text, lost) => { live.textContent = text; live.classList.toggle("lost", lost); };

  // What somebody is about to copy stays as it is.
  function isSelecting() {
    const selection = getSelection();
    return !selection.isCollapsed && selection.containsNode(main, true);
  }
  function hold() { say("stands still while text is selected", false); }
  document.addEventListener("selectionchange", () => { if (!isSelecting()) soon(); });

  // Changes what is different and leaves everything else: focus, live regions and scroll positions stay.
  function children(old, fresh) {
    const now = [...old.childNodes], next = [...fresh.childNodes];
    next.forEach((node, i) => { if (i < now.length) change(now[i], node); else old.append(node); });
    now.slice(next.length).forEach((node) => node.remove());
  }
  function change(old, fresh) {
    if (old.isEqualNode(fresh)) return;
    if (old.nodeType === Node.TEXT_NODE && fresh.nodeType === Node.TEXT_NODE) { old.data = fresh.data; return; }
    const same = old instanceof HTMLElement && old.nodeName === fresh.nodeName && old.id === fresh.id;
    if (!same) { old.replaceWith(fresh); return; }
    for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
    for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    children(old, fresh);
  }

  // A button beside each command. Without a script there is none, and the text can be selected.
  function copiers(root) {
    for (const pre of root.querySelectorAll("pre")) {
      const box = document.createElement("div"), button = document.createElement("button");
      box.className = "command";
      button.type = "button";
      button.className = "copy no-print";
      button.textContent = "Copy";
      button.setAttribute("aria-label", "Copy the command " + pre.textContent);
      pre.replaceWith(box);
      box.append(pre, button);
    }
  }
  async function copy(pre) {
    let done = true;
    try {
      await navigator.clipboard.writeText(pre.textContent);
    } catch {
      // Only pages from this machine or by https may use the clipboard as such.
      getSelection().selectAllChildren(pre);
      done = document.execCommand("copy");
      if (done) getSelection().removeAllRanges();
    }
    // The next picture says "Copy" again.
    if (done) pre.nextElementSibling.textContent = "Copied";
    told.className = "";
    told.textContent = done ? "Copied: " + pre.textContent : "The command is selected: copy it with the keyboard";
  }
  main.addEventListener("click", (event) => {
    const button = event.target.closest(".copy");
    if (button) copy(button.parentElement.querySelector("pre"));
  });

  async function refresh() {
    if (isSelecting()) { hold(); return; }
    if (busy) { again = true; return; }
    busy = true;
    try {
      const room = Math.round(main.clientWidth);
      // While the window takes on another size there may be no room at all for a moment.
      if (room < 200) { busy = false; setTimeout(soon, 200); return; }
      const wanted = new URLSearchParams({ width: room });
      if (query.has("deployment")) wanted.set("deployment", query.get("deployment"));
      const answer = await fetch("page/now?" + wanted, { cache: "no-store" });
      if (!answer.ok) throw new Error(answer.status);
      const fresh = document.createElement("template");
      fresh.innerHTML = await answer.text();
      copiers(fresh.content);
      // Somebody may have begun to select while this was fetched.
      if (isSelecting()) { busy = false; hold(); return; }
      children(main, fresh.content);
      paused();
      last = Date.now();
      again ||= Math.abs(main.clientWidth - room) > 40;
      say("live", false);
    } catch (error) {
      say("the guard does not answer; trying again", true);
    }
    busy = false;
    if (again) { again = false; setTimeout(soon, 200); }
  }

  // At most one new picture a second, however short the windows are.
  let waiting = 0;
  function soon() {
    if (waiting || document.hidden) return;
    waiting = setTimeout(() => { waiting = 0; refresh(); }, Math.max(0, 1000 - (Date.now() - last)));
  }

  const events = new EventSource("api/v1/events");
  for (const kind of ["window", "verdict", "decision"]) events.addEventListener(kind, soon);
  // The verdicts beside the names are not part of what the server draws anew.
  events.addEventListener("window", (event) => {
    const { deployments } = JSON.parse(event.data);
    for (const tag of document.querySelectorAll("nav .tag")) {
      const outcome = deployments[tag.dataset.deployment]?.outcome;
      if (!outcome) continue;
      tag.textContent = outcome.replace("_", " ");
      tag.className = "tag " + (outcome === "insufficient_data" ? "unknown" : outcome);
    }
  });
  events.onerror = () => say("no connection to the guard; trying again", true);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
  let width = 0;
  new ResizeObserver(() => { if (Math.abs(main.clientWidth - width) > 40) { width = main.clientWidth; refresh(); } }).observe(main);

  const button = document.getElementById("pause");
  const dialog = document.getElementById("ask");
  // Without a token the guard takes no commands, and the page has no button.
  function paused() {
    if (!button) return;
    const is = main.querySelector("[data-paused]") !== null;
    button.textContent = is ? "Resume" : "Pause";
    button.dataset.verb = is ? "resume" : "pause";
  }
  async function command(token) {
    const answer = await fetch("api/v1/" + button.dataset.verb, {
      method: "POST",
      headers: { Authorization: "Bearer " + token, "Content-Type": "application/json" },
      body: button.dataset.verb === "pause" ? JSON.stringify({ reason: "from the page" }) : "{}",
    });
    const text = await answer.text();
    let said = text;
    try { const body = JSON.parse(text); said = body.said || body.error || text; } catch { /* plain text */ }
    told.textContent = said;
    told.className = answer.ok ? "good" : "bad";
    if (answer.status === 401) sessionStorage.removeItem("canary-token");
    else if (answer.ok) sessionStorage.setItem("canary-token", token);
    refresh();
  }
  button?.addEventListener("click", () => {
    const token = sessionStorage.getItem("canary-token");
    if (token) command(token); else dialog.showModal();
  });
  dialog?.addEventListener("close", () => {
    const field = dialog.querySelector("input");
    if (dialog.returnValue === "ok" && field.value) command(field.value.trim());
    field.value = "";
  });
  document.addEventListener("keydown", (event) => {
    if (event.target.closest?.("input, dialog") || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "p") button?.click();
    const command = event.key === "c" && main.querySelector("pre");
    if (command) copy(command);
    const n = Number(event.key);
    if (n >= 1) document.querySelectorAll("nav a")[n - 1]?.click();
  });
  copiers(main);
  paused();
  refresh();
})();
