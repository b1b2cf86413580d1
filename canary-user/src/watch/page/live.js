// Keeps the page up to date: server-sent events say when, and the server sends the new part as HTML.
"use strict";
(() => {
  const main = document.getElementById("now");
  const live = document.getElementById("live");
  const query = new URLSearchParams(location.search);
  let busy = false, again = false, last = 0;

  const say = (text, lost) => { live.textContent = text; live.classList.toggle("lost", lost); };

  async function refresh() {
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
      const open = [...main.querySelectorAll("details[open]")].map((d) => d.id);
      const at = document.activeElement && main.contains(document.activeElement) ? document.activeElement.id : "";
      main.innerHTML = await answer.text();
      for (const id of open) document.getElementById(id)?.setAttribute("open", "");
      if (at) document.getElementById(at)?.focus({ preventScroll: true });
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
  events.onerror = () => say("no connection to the guard; trying again", true);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
  let width = 0;
  new ResizeObserver(() => { if (Math.abs(main.clientWidth - width) > 40) { width = main.clientWidth; refresh(); } }).observe(main);

  const button = document.getElementById("pause");
  const dialog = document.getElementById("ask");
  const told = document.getElementById("told");
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
    const n = Number(event.key);
    if (n >= 1) document.querySelectorAll("nav a")[n - 1]?.click();
  });
  paused();
  refresh();
})();
