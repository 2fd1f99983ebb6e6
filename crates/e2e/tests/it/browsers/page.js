// Tries everything that a page can have a browser send without asking, at each of `plan.targets`, and reports
// what it could read of the answers.
const seen = [];
const attempts = [];
let number = 0;
const PATIENCE_MS = 20000;

const attempt = (start) =>
  attempts.push(new Promise((done) => { setTimeout(done, PATIENCE_MS); start(done); }));
const note = (how, url, what) => seen.push({ how, url, what: String(what).slice(0, 200) });

const element = (tag, attributes, url) => attempt((done) => {
  const made = Object.assign(document.createElement(tag), attributes);
  made.onload = made.onerror = () => {
    try {
      const text = made.contentDocument?.body?.innerText;
      if (text) note(tag, url, text);
    } catch { /* another origin's */ }
    done();
  };
  document.body.append(made);
});

const form = (url, method, enctype, body) => attempt((done) => {
  const frame = Object.assign(document.createElement("iframe"), { name: `frame-${number++}` });
  document.body.append(frame);
  const sent = Object.assign(document.createElement("form"), { action: url, method, enctype, target: frame.name });
  sent.append(Object.assign(document.createElement("input"), { name: body, value: "" }));
  document.body.append(sent);
  frame.onload = () => {
    try {
      const text = frame.contentDocument?.body?.innerText;
      if (text) note("form", url, text);
    } catch { /* another origin's */ }
    done();
  };
  sent.submit();
});

const ask = (url, options) => attempt((done) => {
  fetch(url, options).then((response) => {
    if (response.type !== "opaque") note(`fetch ${options.method}`, url, response.status);
  }).catch(() => {}).finally(done);
});

for (const { url, body, type } of plan.targets) {
  navigator.sendBeacon(url, body);
  navigator.sendBeacon(url, new URLSearchParams({ a: body }));
  navigator.sendBeacon(url, new Blob([body], { type: "text/plain" }));
  for (const enctype of ["application/x-www-form-urlencoded", "multipart/form-data", "text/plain"]) {
    form(url, "post", enctype, body);
  }
  form(url, "get", "", "a");
  ask(url, { method: "POST", mode: "no-cors", headers: { "content-type": "text/plain" }, body });
  ask(url, { method: "POST", mode: "no-cors", body: new Blob([body], { type: "application/json" }) });
  ask(url, { method: "POST", mode: "no-cors" });
  ask(url, { method: "GET", mode: "no-cors" });
  for (const method of ["GET", "POST", "PUT", "DELETE"]) {
    const headers = method === "GET" ? {} : { "content-type": type };
    ask(url, { method, headers, body: method === "PUT" || method === "POST" ? body : undefined });
  }
  element("img", { src: url }, url);
  element("script", { src: url }, url);
  element("iframe", { src: url }, url);
  element("link", { rel: "stylesheet", href: url }, url);
  element("link", { rel: "prefetch", href: url }, url);
  attempt((done) => {
    const events = new EventSource(url);
    events.onopen = () => { note("EventSource", url, "open"); events.close(); done(); };
    events.onerror = () => { events.close(); done(); };
  });
}

Promise.all(attempts).then(() => fetch("/report", { method: "POST", body: JSON.stringify(seen) }));
