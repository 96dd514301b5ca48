// Pages are whole without this. It brings them up to date when something has changed, and copies invite codes.
"use strict";
(() => {
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
    button.textContent = "Copied";
  });

  if (document.getElementById("scan-file")) import("/scan.js");

  const live = document.querySelector("[data-live]");
  if (!live) return;

  // Makes a part of the page what it is on a newer one, and leaves alone what is the same: who reads, has marked a text
  // or is about to click is not disturbed.
  function update(part, fresh) {
    if (part.isEqualNode(fresh) || "keep" in part.dataset) return;
    for (const { name } of [...part.attributes]) if (!fresh.hasAttribute(name)) part.removeAttribute(name);
    for (const { name, value } of fresh.attributes) {
      if (part.getAttribute(name) !== value) part.setAttribute(name, value);
    }
    const children = [...fresh.childNodes];
    while (part.childNodes.length > children.length) part.lastChild.remove();
    children.forEach((child, index) => {
      const old = part.childNodes[index];
      if (!old) part.append(child);
      else if (old.nodeName !== child.nodeName) old.replaceWith(child);
      else if (old.nodeType === Node.ELEMENT_NODE) update(old, child);
      else if (old.data !== child.data) old.data = child.data;
    });
  }

  // Whether somebody fills in a form: its fields must stay those that they were.
  function isInUse() {
    if (document.activeElement.matches("[data-live] :is(input, select, textarea)")) return true;
    return [...live.querySelectorAll("input, textarea")].some((field) => field.value !== field.defaultValue);
  }

  let busy = false;
  let again = false;
  async function refresh() {
    again = busy || document.hidden || isInUse();
    if (again) return;
    busy = true;
    try {
      const answer = await fetch(location.href, { cache: "no-store", redirect: "error" });
      if (answer.status === 401) {
        location.reload();
        return;
      }
      if (!answer.ok) return;
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = page.querySelector("[data-live]");
      if (!fresh) return;
      if (isInUse()) again = true;
      else update(live, fresh);
    } catch {
      // The next change tries again.
    } finally {
      busy = false;
    }
  }
  new EventSource("/live").addEventListener("message", refresh);
  const catchUp = () => again && refresh();
  document.addEventListener("visibilitychange", catchUp);
  live.addEventListener("focusout", () => setTimeout(catchUp, 0));
})();
