// A browser starts no worker for a page that is opened as a file. The theme's search needs one, so here it runs in a
// frame that is not shown, which a page may have.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(address) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      (document.body ?? document.documentElement).append(frame);
      const inside = frame.contentWindow;

      const load = (url) =>
        new Promise((loaded, failed) => {
          const script = inside.document.createElement("script");
          script.src = url;
          script.onload = loaded;
          script.onerror = failed;
          inside.document.head.append(script);
        });
      inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      // The theme's worker waits for what it imports.
      inside.importScripts = (...urls) => urls.reduce((before, url) => before.then(() => load(url)), Promise.resolve());
      this.ready = load(address);
      this.tell = (data) => inside.dispatchEvent(new MessageEvent("message", { data }));
    }

    postMessage(data) {
      this.ready.then(() => this.tell(data));
    }

    terminate() {}
  };
}
