// One track for each order: its row, its two staged messages, the subscriber's parcel, the record from Kafka.
// Everything is written with textContent; what the shop and the topic send is never read as HTML.

const MOST_TRACKS = 40;

const WAITING = {
  "order": "waiting for the commit",
  "staged-packing": "waiting for the commit",
  "staged-orders": "waiting for the commit",
  "parcel": "waiting for the subscriber",
  "arrived": "waiting for Kafka",
};

const NOTHING = {
  "order": "no row",
  "staged-packing": "no row",
  "staged-orders": "no row",
  "parcel": "nothing to pack",
  "arrived": "no message",
};

export class Tracks {
  #list;
  #empty;
  #template;
  #say;
  #byOrder = new Map();
  #hues = new Map();

  constructor({ list, empty, template, say }) {
    this.#list = list;
    this.#empty = empty;
    this.#template = template;
    this.#say = say;
  }

  onEvent(event) {
    if (event.kind === "order" && !this.#byOrder.has(event.order_id)) {
      this.#open(event);
      this.#say(`Order ${event.order_id} is committed, with two messages.`);
    }
    // The feed remembers only the latest events, so the beginning of an old order may be missing.
    const track = this.#byOrder.get(event.order_id);
    if (!track) return;
    this.#apply[event.kind](track, event);
    this.#conclude(track);
  }

  onRollback(order) {
    const track = this.#open(order);
    track.element.dataset.state = "rolled-back";
    track.part("track-state").textContent = `rolled back: ${order.reason}`;
    for (const [name, text] of Object.entries(NOTHING)) fill(track.slot(name), "none", [line("card-note", text)]);
    this.#say(`Order ${order.order_id} was rolled back (HTTP ${order.code}): ${order.reason}. No row, no message.`);
  }

  clear() {
    this.#byOrder.clear();
    this.#hues.clear();
    this.#list.replaceChildren();
    this.#empty.hidden = false;
  }

  #apply = {
    order: (track, event) => {
      track.since ??= event.at;
      fill(track.slot("order"), "here", [
        name(`orders #${event.order_id}`, "committed"),
        facts({ customer: event.customer, item: event.item, quantity: event.quantity, status: event.status }),
        line("card-note", "in one transaction with both messages"),
      ]);
    },

    staged: (track, event) => {
      const slot = track.slot(`staged-${event.queue}`);
      if (!slot || slot.dataset.state === "left") return;
      track.staged.set(event.id, event);
      this.#fillStaged(slot, "here", event, "in the table");
    },

    left: (track, event) => {
      const slot = track.slot(`staged-${event.queue}`);
      if (!slot) return;
      const staged = track.staged.get(event.id);
      this.#fillStaged(slot, "left", event, staged ? `left after ${elapsed(event.at - staged.at)}` : "left");
    },

    parcel: (track, event) => {
      track.parcelAt = event.at;
      fill(track.slot("parcel"), "here", [
        name(`parcels #${event.id}`, `+${elapsed(event.at - track.since)}`),
        facts({ order: `#${event.order_id}` }),
        ...this.#chip(event.idempotency_key),
      ], this.#hue(event.idempotency_key));
    },

    arrived: (track, event) => {
      track.arrivedAt ??= event.at;
      track.arrivals.add(`${event.partition}/${event.offset}`);
      const staged = [...track.staged.values()].find((row) => row.idempotency_key === event.idempotency_key);
      const slot = track.slot("arrived");
      slot.dataset.same = staged ? "yes" : "no";
      fill(slot, "here", [
        name(event.topic, `+${elapsed(track.arrivedAt - track.since)}`),
        facts({ key: event.key, partition: event.partition, offset: event.offset }),
        ...this.#chip(event.idempotency_key),
        line("card-note", [
          staged ? `same key as outbox #${staged.id}` : "not a key that was staged here",
          track.arrivals.size > 1 ? `arrived ${track.arrivals.size} times` : "",
        ].filter(Boolean).join(", ")),
      ], this.#hue(event.idempotency_key));
    },
  };

  #fillStaged(slot, state, event, note) {
    fill(slot, state, [
      name(`outbox #${event.id}`, note),
      facts({ queue: event.queue, key: event.key }),
      ...this.#chip(event.idempotency_key),
    ], this.#hue(event.idempotency_key));
  }

  #open(order) {
    const element = this.#template.content.firstElementChild.cloneNode(true);
    const track = {
      element,
      staged: new Map(),
      arrivals: new Set(),
      part: (className) => element.querySelector(`.${className}`),
      slot: (slotName) => element.querySelector(`[data-slot="${CSS.escape(slotName)}"]`),
    };
    element.dataset.order = order.order_id;
    track.part("track-title").textContent = `Order ${order.order_id}`;
    track.part("track-what").textContent = `${order.customer}, ${order.quantity} × ${order.item}`;
    track.part("track-state").textContent = "on its way";
    for (const [slotName, text] of Object.entries(WAITING)) {
      fill(track.slot(slotName), "waiting", [line("card-note", text)]);
    }
    this.#byOrder.set(order.order_id, track);
    this.#list.prepend(element);
    this.#empty.hidden = true;
    if (this.#list.children.length > MOST_TRACKS) {
      const oldest = this.#list.lastElementChild;
      this.#byOrder.delete(Number(oldest.dataset.order));
      oldest.remove();
    }
    return track;
  }

  #conclude(track) {
    if (!track.parcelAt || !track.arrivedAt || track.element.dataset.state === "delivered") return;
    const after = elapsed(Math.max(track.parcelAt, track.arrivedAt) - track.since);
    track.element.dataset.state = "delivered";
    track.part("track-state").textContent = `delivered in ${after}`;
    this.#say(`Order ${track.element.dataset.order} was packed, and arrived from Kafka, ${after} after its commit.`);
  }

  #chip(key) {
    const chip = line("chip", key);
    chip.dataset.key = key;
    return [line("chip-label", "idempotency key"), chip];
  }

  // Neighbours in this sequence lie far apart. Red and orange stay out: they would look like an error.
  #hue(key) {
    if (!this.#hues.has(key)) this.#hues.set(key, 150 + ((this.#hues.size * 0.618034) % 1) * 190);
    return this.#hues.get(key);
  }
}

function fill(slot, state, children, hue) {
  slot.dataset.state = state;
  if (hue !== undefined) slot.style.setProperty("--hue", hue.toFixed(0));
  slot.replaceChildren(...children);
}

function name(what, when) {
  const element = line("card-name", "");
  element.append(line("card-what", what, "span"), line("card-when", when, "span"));
  return element;
}

function facts(pairs) {
  const list = document.createElement("dl");
  for (const [term, value] of Object.entries(pairs)) {
    const pair = document.createElement("div");
    pair.append(line("", term, "dt"), line("", value, "dd"));
    list.append(pair);
  }
  return list;
}

function line(className, text, tag = "p") {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.textContent = text;
  return element;
}

function elapsed(milliseconds) {
  const whole = Math.max(0, Math.round(milliseconds));
  return whole < 1000 ? `${whole} ms` : `${(whole / 1000).toFixed(1)} s`;
}
