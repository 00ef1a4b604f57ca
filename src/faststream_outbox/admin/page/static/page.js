// Has the parts of a page that change be fetched again every few seconds. Without it, the page works all the same.
const SECONDS = 5;
const place = document.querySelector("[data-live]");

if (place) {
  const said = document.createElement("span");
  const stop = document.createElement("button");
  let running = true;
  stop.type = "button";
  stop.className = "quiet";
  const show = (text) => {
    said.textContent = text;
    stop.textContent = running ? "Hold" : "Go on";
  };
  stop.addEventListener("click", () => {
    running = !running;
    show(running ? "live" : "held");
  });
  place.replaceChildren(said, stop);
  show("live");

  const exchange = (fresh) => {
    for (const part of document.querySelectorAll("[data-part]")) {
      const other = fresh.querySelector(`[data-part="${part.dataset.part}"]`);
      // What somebody is about to use, or has marked, stays as it is.
      const isInUse = part.contains(document.activeElement) || getSelection().containsNode(part, true);
      if (other && other.innerHTML !== part.innerHTML && !(isInUse && !getSelection().isCollapsed)) {
        const focused = part.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
        part.replaceChildren(...other.childNodes);
        if (focused) part.querySelector(`[href="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
      }
    }
  };

  const look = async () => {
    if (!running || document.hidden) return;
    try {
      const answer = await fetch(location.href, { cache: "no-store", credentials: "same-origin" });
      if (!answer.ok) throw new Error(answer.status);
      exchange(new DOMParser().parseFromString(await answer.text(), "text/html"));
      show("live");
    } catch {
      show("no answer; these figures are of before");
    }
  };

  // The next look begins when the one before has ended.
  const again = async () => {
    await look();
    setTimeout(again, SECONDS * 1000);
  };
  setTimeout(again, SECONDS * 1000);
}
