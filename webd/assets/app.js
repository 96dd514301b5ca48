// Pages are whole without this. It shows them anew when something has changed, and copies invite codes.
"use strict";
(() => {
  for (const button of document.querySelectorAll("[data-copy]")) {
    const source = document.getElementById(button.dataset.copy);
    if (!source || !navigator.clipboard) continue;
    button.hidden = false;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(source.textContent);
      button.textContent = "Copied";
    });
  }

  const live = document.querySelector("[data-live]");
  if (!live || !window.EventSource) return;
  let busy = false;
  let again = false;
  async function refresh() {
    // Not under somebody's hands, nor where nobody looks.
    if (busy || document.hidden || live.contains(document.activeElement)) {
      again = true;
      return;
    }
    busy = true;
    again = false;
    try {
      const answer = await fetch(location.href, { cache: "no-store", redirect: "error" });
      if (answer.status === 401) {
        location.reload();
        return;
      }
      if (!answer.ok) return;
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = page.querySelector("[data-live]");
      if (fresh && !live.contains(document.activeElement)) live.replaceChildren(...fresh.childNodes);
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
