// The page: sends orders to the shop, and hands what the feed tells to the tracks.

import { Tracks } from "./tracks.js";

const RECONNECT_MS = 2000;

const form = document.getElementById("order");
const connection = document.getElementById("connection");
const status = document.getElementById("status");
const tracks = new Tracks({
  list: document.getElementById("tracks"),
  empty: document.getElementById("empty"),
  template: document.getElementById("track"),
  say: (text) => { status.textContent = text; },
});

let run = null;

function listen() {
  const events = new EventSource("/events");
  events.addEventListener("open", () => show("live"));
  events.addEventListener("message", ({ data }) => onEvent(JSON.parse(data)));
  events.addEventListener("error", () => {
    show("reconnecting");
    // The browser tries again by itself, unless it was answered with something else than a stream.
    if (events.readyState === EventSource.CLOSED) setTimeout(listen, RECONNECT_MS);
  });
}

function onEvent(event) {
  if (event.kind === "hello") {
    if (run !== null && run !== event.run) tracks.clear();
    run = event.run;
  } else if (event.kind === "counts") {
    for (const cell of document.querySelectorAll("[data-count]")) {
      cell.textContent = event[cell.dataset.count] ?? "–";
    }
  } else {
    tracks.onEvent(event);
  }
}

function show(state) {
  connection.dataset.state = state;
  connection.textContent = state;
}

form.addEventListener("submit", async (submission) => {
  submission.preventDefault();
  const fields = new FormData(form);
  const order = {
    customer: fields.get("customer"),
    item: fields.get("item"),
    quantity: Number(fields.get("quantity")),
  };
  const options = new URLSearchParams({ slow: fields.has("slow"), fail: submission.submitter?.value === "fail" });
  try {
    const response = await fetch(`/orders?${options}`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(order),
    });
    const answer = await response.json();
    // A committed order needs nothing here: the feed tells of it.
    if (!response.ok) onRefusal(response.status, answer.detail, order);
  } catch {
    status.textContent = "The shop did not answer. Is it still running?";
  }
});

function onRefusal(code, detail, order) {
  if (detail?.order_id) {
    tracks.onRollback({ ...order, ...detail, code });
  } else if (Array.isArray(detail)) {
    status.textContent = detail.map(({ loc, msg }) => `${loc.at(-1)}: ${msg}`).join(". ");
  } else {
    status.textContent = `The shop answered ${code}.`;
  }
}

listen();
