// Search without a server: browsers refuse workers to pages opened from disk, so the search's worker
// runs in a hidden frame there. Pages that a server sends keep the browser's own workers.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.appendChild(this.frame);
      const inside = this.frame.contentWindow;
      inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      // scripts load one after another; what is sent meanwhile waits in `loading`
      const load = (src) => new Promise((done, failed) => {
        const script = inside.document.createElement("script");
        Object.assign(script, { src, onload: done, onerror: failed });
        inside.document.body.appendChild(script);
      });
      inside.importScripts = (...all) =>
        all.reduce((before, src) => before.then(() => load(src)), Promise.resolve());
      this.loading = load(url);
      this.inside = inside;
    }

    postMessage(data) {
      this.loading = this.loading.then(() =>
        this.inside.dispatchEvent(new this.inside.MessageEvent("message", { data })));
    }

    terminate() {
      this.frame.remove();
    }
  };
}
