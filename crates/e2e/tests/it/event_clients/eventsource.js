// node eventsource.js PACKAGES URL: follows with npm's EventSource, and prints each event as a line of JSON.
"use strict";

const { createRequire } = require("node:module");

const [packages, url] = process.argv.slice(2);
const { EventSource } = createRequire(`${packages}/package.json`)("eventsource");

const print = (received) => console.log(JSON.stringify(received));
const source = new EventSource(url);
for (const name of ["position", "price_change", "gap"]) {
  source.addEventListener(name, ({ lastEventId, data }) => print({ event: name, id: lastEventId, data }));
}
source.onmessage = ({ data }) => print({ event: "message", data });
source.onopen = () => print({ event: "open" });
source.onerror = ({ code, message }) => print({ event: "error", code, message, state: source.readyState });
