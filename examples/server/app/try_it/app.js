// The page at /: asks the API as any client does, and draws what its headers say of the limits.
// Tokens are kept in memory only, and are gone with the page.
"use strict";

const $ = (id) => document.getElementById(id);
const state = { pair: null, me: null, loginToken: null };
/** By the limiter's name: what its headers last said, and when requests were counted. */
const limiters = new Map();

// --- Asking -----------------------------------------------------------------------------------

async function ask(method, path, body, token = state.pair?.access_token) {
  const headers = {};
  if (token) headers.authorization = `Bearer ${token}`;
  if (body !== undefined) headers["content-type"] = "application/json";
  const base = document.baseURI.replace(/\/[^/]*$/, "");
  let response;
  try {
    response = await fetch(base + path, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch {
    say("The server does not answer.", true);
    return { ok: false, status: 0, json: null };
  }
  const text = await response.text();
  let json = null;
  try {
    json = JSON.parse(text);
  } catch { /* no answer, or none in JSON */ }
  count(response);
  return { ok: response.ok, status: response.status, json, text };
}

/** Asks, and shows what came of it. */
async function show(method, path, body) {
  const answer = await ask(method, path, body);
  if (answer.status) {
    const detail = answer.json?.detail ?? (answer.ok ? "" : answer.text);
    say(`${method} ${path.split("?")[0]}: ${answer.status}${detail ? `. ${detail}` : ""}`, !answer.ok);
    $("answer").hidden = !answer.json;
    $("answer").textContent = answer.json ? JSON.stringify(veiled(answer.json), null, 2) : "";
  }
  return answer;
}

/** Tokens are shown by their beginnings. */
function veiled(json) {
  const copy = { ...json };
  for (const name of ["access_token", "refresh_token", "login_token"]) {
    if (copy[name]) copy[name] = `${copy[name].slice(0, 12)}…`;
  }
  return copy;
}

function say(text, wrong = false) {
  $("said").textContent = text;
  $("said").className = wrong ? "wrong" : "";
}

// --- Who is here ------------------------------------------------------------------------------

async function signedIn(pair) {
  state.pair = pair;
  state.loginToken = null;
  const me = await ask("GET", "/auth/me");
  state.me = me.ok ? me.json : null;
  await drawMember();
}

function signedOut() {
  state.pair = state.me = state.loginToken = null;
  return drawMember();
}

async function drawMember() {
  const { me } = state;
  $("me").textContent = me
    ? `${me.email}, ${me.role}${me.plan ? `, plan ${me.plan}` : ""}`
    : "Nobody yet.";
  $("stranger").hidden = Boolean(me);
  $("factor").hidden = !state.loginToken;
  $("member").hidden = !me;
  for (const section of document.querySelectorAll("[data-member]")) section.hidden = !me;
  for (const section of document.querySelectorAll("[data-admin]")) section.hidden = me?.role !== "admin";
  if (me) await Promise.all([drawSessions(), drawKeys(), me.role === "admin" ? drawUsers() : null]);
}

/** A list of things, each with its words and what can be done about it. */
function drawList(id, things, words, acts) {
  $(id).replaceChildren(...things.map((thing) => {
    const item = document.createElement("li");
    const text = document.createElement("span");
    text.textContent = words(thing);
    item.append(text, ...acts(thing));
    return item;
  }));
}

function button(text, label, act) {
  const made = document.createElement("button");
  made.type = "button";
  made.className = "second";
  made.textContent = text;
  made.setAttribute("aria-label", label);
  made.addEventListener("click", act);
  return made;
}

async function drawSessions() {
  const { ok, json } = await ask("GET", "/auth/sessions");
  const words = (session) => `${session.current ? "This one: " : ""}${session.ip ?? ""} `
    + `${session.user_agent ?? ""}, last used ${new Date(session.last_used_at).toLocaleTimeString()}`;
  drawList("sessions", ok ? json.sessions : [], words, (session) => [
    button("End", `End the session of ${session.last_used_at}`, async () => {
      await show("DELETE", `/auth/sessions/${session.id}`);
      await (session.current ? signedOut() : drawSessions());
    }),
  ]);
}

async function drawKeys() {
  const { ok, json } = await ask("GET", "/auth/keys");
  drawList("keys", ok ? json.keys : [], (key) => `${key.name} (${key.prefix}…, ${key.role})`, (key) => [
    button("Revoke", `Revoke the key ${key.name}`, async () => {
      await show("DELETE", `/auth/keys/${key.id}`);
      await drawKeys();
    }),
  ]);
}

async function drawUsers() {
  const { ok, json } = await ask("GET", "/admin/users?limit=20");
  drawList("users", ok ? json.users : [], (user) => user.email, (user) => {
    const choice = (name, values, now) => {
      const select = document.createElement("select");
      select.setAttribute("aria-label", `${name} of ${user.email}`);
      for (const value of values) {
        const option = new Option(value || "no plan", value);
        option.selected = value === (now ?? "");
        select.add(option);
      }
      select.addEventListener("change", async () => {
        await show("PATCH", `/admin/users/${user.id}`, { [name]: select.value || null });
        await drawUsers();
      });
      return select;
    };
    return [
      choice("role", ["viewer", "editor", "admin"], user.role),
      choice("plan", ["", "free", "paid", "enterprise"], user.plan),
    ];
  });
}

// --- Limits -----------------------------------------------------------------------------------

/** `"ip";q=100;w=60, "user";…` as a list of [name, {q, w}] (RFC 9651). */
function members(header) {
  return [...(header ?? "").matchAll(/"([^"]*)"((?:;[a-z]+=\d+)*)/g)].map(([, name, parameters]) => [
    name,
    Object.fromEntries([...parameters.matchAll(/;([a-z]+)=(\d+)/g)].map(([, key, value]) => [key, Number(value)])),
  ]);
}

function count(response) {
  const now = Date.now();
  const left = new Map(members(response.headers.get("ratelimit")));
  for (const [name, { q, w }] of members(response.headers.get("ratelimit-policy"))) {
    const known = limiters.get(name) ?? { marks: [] };
    const { r } = left.get(name);
    const refused = response.status === 429 && r === 0;
    // A login that is right, say, is told of its limiter without being counted by it.
    const counted = known.r === undefined ? r < q : r < known.r;
    if (refused || counted) known.marks.push({ at: now, refused });
    limiters.set(name, { ...known, quota: q, window: w * 1000, r });
  }
  draw();
}

const SVG = "http://www.w3.org/2000/svg";

function draw() {
  if (!limiters.size) return;
  const now = Date.now();
  for (const [name, limiter] of limiters) {
    limiter.marks = limiter.marks.filter((mark) => now - mark.at < limiter.window);
    let view = document.getElementById(`window-${name}`);
    if (!view) view = windowOf(name);
    const counted = limiter.marks.filter((mark) => !mark.refused);
    // What others asked from here, or before this page was opened, has no mark.
    const used = Math.max(counted.length, 0);
    const left = Math.max(0, Math.min(limiter.quota, Math.max(limiter.r, limiter.quota - used)));
    const oldest = counted[0];
    const seconds = oldest ? Math.ceil((oldest.at + limiter.window - now) / 1000) : 0;
    view.querySelector("[data-left]").textContent = `${name}: ${left} of ${limiter.quota} left`;
    view.querySelector("[data-next]").textContent = oldest
      ? `one more in ${seconds} s` : `window ${limiter.window / 1000} s`;
    const marks = limiter.marks.slice(-400).map((mark) => {
      const bar = document.createElementNS(SVG, "rect");
      bar.setAttribute("class", mark.refused ? "refused" : "mark");
      bar.setAttribute("x", String(1000 - ((now - mark.at) / limiter.window) * 1000 - 3));
      bar.setAttribute("y", mark.refused ? "20" : "6");
      bar.setAttribute("width", "5");
      bar.setAttribute("height", mark.refused ? "14" : "28");
      return bar;
    });
    view.querySelector("g").replaceChildren(...marks);
    limiter.r = oldest ? limiter.r : limiter.quota;
  }
}

function windowOf(name) {
  if (limiters.size && $("windows").firstElementChild?.tagName === "P") $("windows").replaceChildren();
  const view = document.createElement("div");
  view.className = "window";
  view.id = `window-${name}`;
  const words = document.createElement("p");
  const left = document.createElement("strong");
  left.dataset.left = "";
  const next = document.createElement("span");
  next.dataset.next = "";
  words.append(left, next);
  const picture = document.createElementNS(SVG, "svg");
  picture.setAttribute("viewBox", "0 0 1000 40");
  picture.setAttribute("preserveAspectRatio", "none");
  picture.setAttribute("aria-hidden", "true");
  const frame = document.createElementNS(SVG, "rect");
  frame.setAttribute("class", "frame");
  frame.setAttribute("x", "1");
  frame.setAttribute("y", "1");
  frame.setAttribute("width", "998");
  frame.setAttribute("height", "38");
  picture.append(frame, document.createElementNS(SVG, "g"));
  view.append(words, picture);
  $("windows").append(view);
  return view;
}

setInterval(draw, 250);

// --- What is clicked --------------------------------------------------------------------------

function onSubmit(id, act) {
  $(id).addEventListener("submit", async (event) => {
    event.preventDefault();
    const fields = Object.fromEntries(new FormData(event.target));
    await act(fields, event.submitter, event.target);
  });
}

onSubmit("account", async ({ email, password }, submitter) => {
  if (submitter?.value === "register") return show("POST", "/auth/register", { email, password });
  if (submitter?.value === "forgot") return show("POST", "/auth/password/forgot", { email });
  const { ok, json } = await show("POST", "/auth/login", { email, password });
  if (ok) {
    await signedIn(json);
  } else if (json?.login_token) {
    state.loginToken = json.login_token;
    await drawMember();
    $("code").focus();
  }
});

onSubmit("factor", async ({ code }) => {
  const { ok, json } = await show("POST", "/auth/login/totp", { login_token: state.loginToken, code });
  if (ok) await signedIn(json);
});

onSubmit("verify", ({ link }) => {
  const token = link.includes("token=") ? new URL(link, location.href).searchParams.get("token") : link;
  return show("POST", "/auth/verify", { token: token.trim() });
});

onSubmit("new-key", async ({ name }, _, form) => {
  const { ok, json } = await show("POST", "/auth/keys", { name });
  if (!ok) return;
  $("key").textContent = `Shown this once: ${json.key}`;
  form.reset();
  await drawKeys();
});

onSubmit("totp", async ({ current_password }, _, form) => {
  const { ok, json } = await show("POST", "/auth/totp", { current_password });
  if (!ok) return;
  form.reset();
  $("secret").textContent = json.secret;
  $("totp-confirm").hidden = false;
  $("totp-code").focus();
});

onSubmit("totp-confirm", async ({ code }, _, form) => {
  const { ok, json } = await show("POST", "/auth/totp/confirm", { code });
  if (!ok) return;
  form.reset();
  form.hidden = true;
  $("recovery").textContent = `It is on. Recovery codes, shown this once: ${json.recovery_codes.join(", ")}`;
});

$("refresh").addEventListener("click", async () => {
  const { ok, json } = await show("POST", "/auth/refresh", { refresh_token: state.pair.refresh_token });
  await (ok ? signedIn(json) : signedOut());
});
$("logout").addEventListener("click", async () => {
  await show("POST", "/auth/logout", { refresh_token: state.pair.refresh_token });
  await signedOut();
});
$("logout-all").addEventListener("click", async () => {
  await show("POST", "/auth/logout-all");
  await signedOut();
});

let last = "GET /public/status";
for (const asked of document.querySelectorAll("[data-ask]")) {
  asked.addEventListener("click", () => {
    last = asked.dataset.ask;
    const body = asked.dataset.body;
    return show(...last.split(" "), body && JSON.parse(body));
  });
}
$("burst").addEventListener("click", async () => {
  const [method, path] = last.startsWith("GET") ? last.split(" ") : ["GET", "/public/status"];
  const answers = await Promise.all(Array.from({ length: 25 }, () => ask(method, path)));
  const refused = answers.filter(({ status }) => status === 429).length;
  say(`${method} ${path}, 25 times: ${25 - refused} let through, ${refused} refused`, refused > 0);
});
