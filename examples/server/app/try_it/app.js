// The page at /: asks the API as any client does, and draws what its headers say of the limits.
// Tokens are kept in memory only, and are gone with the page.
"use strict";

const $ = (id) => document.getElementById(id);
/** Who has logged in here, by address, each with `pair` and `me`; and as whom the page acts. */
const accounts = new Map();
const state = { acting: null, loginToken: null, key: null };
/** By the limiter's name: what its headers last said, and when requests were counted. */
const limiters = new Map();

const acting = () => accounts.get(state.acting);

// --- Asking -----------------------------------------------------------------------------------

async function ask(method, path, body, token = acting()?.pair.access_token) {
  const account = [...accounts.values()].find(({ pair }) => pair.access_token === token);
  const headers = {};
  if (token) headers.authorization = `Bearer ${token}`;
  if (body !== undefined) headers["content-type"] = "application/json";
  let response;
  try {
    response = await fetch(path.slice(1), {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch {
    say("The server does not answer.", "wrong");
    return { ok: false, status: 0, json: null };
  }
  const text = await response.text();
  let json = null;
  try {
    json = JSON.parse(text);
  } catch { /* no answer, or none in JSON */ }
  count(response, json);
  // A token ends, also when an admin changes the role that it names: a new one tells the new role.
  if (json?.code === "token_expired" && account) {
    if (account.pair.access_token !== token || await renewed(account)) {
      return ask(method, path, body, account.pair.access_token);
    }
  }
  return { ok: response.ok, status: response.status, json, text, headers: response.headers };
}

/** Asks, and shows what came of it. */
async function show(method, path, body, token) {
  const answer = await ask(method, path, body, token);
  if (answer.status) {
    const detail = answer.json?.detail ?? (answer.ok ? "" : answer.text);
    const line = `${method} ${path.split("?")[0]}: ${answer.status}${detail ? `. ${detail}` : ""}`;
    say(line, answer.ok ? "right" : "wrong");
    const names = ["RateLimit-Policy", "RateLimit", "Retry-After", "WWW-Authenticate", "Location"];
    const lines = names.filter((name) => answer.headers.has(name))
      .map((name) => `${name}: ${answer.headers.get(name)}`);
    if (answer.json) lines.push("", JSON.stringify(veiled(answer.json), null, 2));
    $("answer").hidden = !lines.length;
    $("answer").textContent = lines.join("\n");
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

function say(text, kind = "") {
  $("said").textContent = text;
  $("said").className = kind;
}

// --- Who is here ------------------------------------------------------------------------------

async function signedIn(pair) {
  const { ok, json } = await ask("GET", "/auth/me", undefined, pair.access_token);
  if (!ok) return;
  accounts.set(json.email, { pair, me: json });
  $("entry").open = $("mail").open = false;
  $("account").reset();
  await actAs(json.email);
}

function actAs(email) {
  Object.assign(state, { acting: email, loginToken: null, key: null });
  document.querySelector("[name=as][value=session]").checked = true;
  for (const id of ["key", "recovery", "totp-state"]) $(id).textContent = "";
  for (const id of ["new-key", "totp", "totp-confirm", "totp-disable"]) $(id).reset();
  return drawMember();
}

/** What was acted as until now is over. */
function signedOut() {
  accounts.delete(state.acting);
  return actAs(accounts.keys().next().value ?? null);
}

/** A new token pair, and what it says of its owner; one for all who ask, since a refresh token works once. */
function renewed(account) {
  account.renewing ??= renew(account).finally(() => delete account.renewing);
  return account.renewing;
}

async function renew(account) {
  const { ok, json } = await ask("POST", "/auth/refresh", { refresh_token: account.pair.refresh_token }, null);
  if (!ok) return false;
  account.pair = json;
  const me = await ask("GET", "/auth/me", undefined, account.pair.access_token);
  if (me.ok) account.me = me.json;
  drawWho();
  return true;
}

function drawWho() {
  const me = acting()?.me;
  $("me").textContent = me
    ? `${me.email}, ${me.role}${me.plan ? `, plan ${me.plan}` : ""}`
    : "Nobody yet.";
  $("accounts").hidden = accounts.size < 2;
  $("accounts").replaceChildren("Act as", ...[...accounts].map(([email, account]) => {
    const made = button(`${email.split("@")[0]}, ${account.me.role}`, `Act as ${email}`, () => actAs(email));
    made.setAttribute("aria-pressed", String(email === state.acting));
    return made;
  }));
  $("entry-title").textContent = me ? "Log in as someone else as well" : "Log in or register";
  if (!me) $("entry").open = true;
  $("factor").hidden = !state.loginToken;
  $("member").hidden = $("as").hidden = !me;
  document.querySelector("[name=as][value=key]").disabled = !state.key;
  for (const section of document.querySelectorAll("[data-member]")) section.hidden = !me;
  for (const section of document.querySelectorAll("[data-admin]")) section.hidden = me?.role !== "admin";
  if (me) drawFactor();
}

async function drawMember() {
  drawWho();
  const me = acting()?.me;
  if (!me) return;
  await Promise.all([drawSessions(), drawKeys(), me.role === "admin" ? drawUsers() : null]);
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

/** The words of a `User-Agent` that people know. */
function browser(agent) {
  const name = /(Firefox|Edg|OPR|Chrome|Safari)\/(\d+)/.exec(agent ?? "");
  const system = /Windows|Android|iPhone|iPad|Mac OS X|Linux/.exec(agent ?? "");
  return name ? `${name[1].replace("Edg", "Edge").replace("OPR", "Opera")} ${name[2]}`
    + (system ? ` on ${system[0]}` : "") : agent ?? "a program";
}

async function drawSessions() {
  const { ok, json } = await ask("GET", "/auth/sessions");
  const words = (session) => `${session.current ? "This one: " : ""}${browser(session.user_agent)}`
    + `${session.ip ? ` from ${session.ip}` : ""}, last used ${new Date(session.last_used_at).toLocaleTimeString()}`;
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

function drawFactor() {
  const { me } = acting();
  const pending = !$("totp-confirm").hidden && !me.totp;
  $("totp-state").textContent = me.totp ? "On: a login asks for a code." : "Off.";
  $("totp").hidden = me.totp || pending;
  $("totp-disable").hidden = !me.totp;
  if (me.totp) $("totp-confirm").hidden = true;
  for (const field of document.querySelectorAll("[name=username]")) field.value = me.email;
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

const COUNTS = {
  ip: "requests from your address without a token",
  user: "requests of this user",
  login: "failed logins from your address",
  account: "failed logins of this account",
  register: "registrations and mails asked for from your address",
};
const WRONG = ["invalid_credentials", "invalid_code", "wrong_password", "wrong_code"];

/** Whether a limiter counted a request that was answered so. */
function isCounted(name, { status }, json) {
  if (status === 429) return false; // What one refuses none counts.
  if (name === "login" || name === "account") return WRONG.includes(json?.code);
  if (name === "register") return status === 201 || status === 202;
  return true;
}

/** `"ip";q=100;w=60, "user";…` as a list of [name, {q, w}] (RFC 9651). */
function members(header) {
  return [...(header ?? "").matchAll(/"([^"]*)"((?:;[a-z]+=\d+)*)/g)].map(([, name, parameters]) => [
    name,
    Object.fromEntries([...parameters.matchAll(/;([a-z]+)=(\d+)/g)].map(([, key, value]) => [key, Number(value)])),
  ]);
}

function count(response, json) {
  const now = Date.now();
  const left = new Map(members(response.headers.get("ratelimit")));
  for (const [name, { q, w }] of members(response.headers.get("ratelimit-policy"))) {
    const known = limiters.get(name) ?? { marks: [], at: 0 };
    const limiter = { ...known, quota: q, window: w * 1000 };
    limiters.set(name, limiter);
    const refused = json?.["violated-policies"]?.includes(name) ?? false;
    if (refused || isCounted(name, response, json)) limiter.marks.push({ at: now, refused });
    // Of answers that overtake one another, the one that says less is the later.
    const { r } = left.get(name);
    limiter.left = now - known.at < 1000 ? Math.min(r, known.left) : r;
    limiter.at = now;
  }
  draw();
}

const SVG = "http://www.w3.org/2000/svg";
const BARS = 60;
const [WIDTH, HEIGHT] = [600, 64];

function time(ms) {
  const s = Math.ceil(ms / 1000);
  return s < 120 ? `${s} s` : s < 7200 ? `${Math.round(s / 60)} min` : `${Math.round(s / 3600)} h`;
}

function draw() {
  const now = Date.now();
  for (const [name, limiter] of limiters) {
    const { quota, window } = limiter;
    const gone = limiter.marks.filter((mark) => now - mark.at >= window);
    limiter.marks = limiter.marks.filter((mark) => now - mark.at < window);
    limiter.left = Math.min(quota, limiter.left + gone.filter((mark) => !mark.refused).length);
    const oldest = limiter.marks.find((mark) => !mark.refused);
    // What others asked from here, or before this page was opened, has no mark.
    if (!oldest && now - limiter.at >= window) limiter.left = quota;
    const view = $(`window-${name}`) ?? windowOf(name);
    view.classList.toggle("full", limiter.left === 0);
    view.querySelector("[data-left]").textContent = `${name}: ${limiter.left} of ${quota} left`;
    view.querySelector("[data-next]").textContent = oldest && limiter.left < quota
      ? `one more in ${time(oldest.at + window - now)}` : `window ${time(window)}`;
    view.querySelector("[data-since]").textContent = `${time(window)} ago`;
    view.querySelector(".level").setAttribute("width", String((WIDTH * limiter.left) / quota));
    view.querySelector("g").replaceChildren(...bars(limiter, now));
  }
}

/** The window as bars, each as high as requests fell into its time; refused ones on top. */
function bars({ marks, window, quota }, now) {
  const wide = window / BARS;
  const bins = new Map();
  for (const { at, refused } of marks) {
    const bin = bins.get(Math.floor(at / wide)) ?? { counted: 0, refused: 0 };
    bin[refused ? "refused" : "counted"] += 1;
    bins.set(Math.floor(at / wide), bin);
  }
  const most = Math.max(quota / 25, 3, ...[...bins.values()].map((bin) => bin.counted + bin.refused));
  return [...bins].flatMap(([bin, of]) => {
    const x = WIDTH - ((now - bin * wide) / window) * WIDTH;
    const high = (n) => (n / most) * (HEIGHT - 12);
    return [
      rectangle("mark", x, HEIGHT - high(of.counted), WIDTH / BARS - 2, high(of.counted)),
      rectangle("refused", x, HEIGHT - high(of.counted + of.refused), WIDTH / BARS - 2, high(of.refused)),
    ];
  });
}

function rectangle(kind, x, y, width, height) {
  const made = document.createElementNS(SVG, "rect");
  for (const [name, value] of Object.entries({ class: kind, x, y, width, height })) {
    made.setAttribute(name, String(value));
  }
  return made;
}

function windowOf(name) {
  if ($("windows").firstElementChild.tagName === "P") $("windows").replaceChildren();
  const line = (...parts) => {
    const made = document.createElement("p");
    made.append(...parts);
    return made;
  };
  const part = (kind, slot, text = "") => {
    const made = document.createElement(kind);
    if (slot) made.dataset[slot] = "";
    made.textContent = text;
    return made;
  };
  const view = document.createElement("div");
  view.className = "window";
  view.id = `window-${name}`;
  const picture = document.createElementNS(SVG, "svg");
  picture.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  picture.setAttribute("preserveAspectRatio", "none");
  picture.setAttribute("aria-hidden", "true");
  picture.append(rectangle("level", 0, 0, WIDTH, 6), document.createElementNS(SVG, "g"));
  const [what, axis] = [line(COUNTS[name] ?? "requests"), line(part("span", "since"), part("span", "", "now"))];
  what.className = axis.className = "what";
  view.append(line(part("strong", "left"), part("span", "next")), what, picture, axis);
  const order = Object.keys(COUNTS);
  const later = [...$("windows").children].find(({ id }) => order.indexOf(id.slice(7)) > order.indexOf(name));
  $("windows").insertBefore(view, later ?? null);
  return view;
}

setInterval(draw, matchMedia("(prefers-reduced-motion: reduce)").matches ? 1000 : 250);

// --- What is clicked --------------------------------------------------------------------------

function onSubmit(id, act) {
  $(id).addEventListener("submit", async (event) => {
    event.preventDefault();
    const fields = Object.fromEntries(new FormData(event.target));
    await act(fields, event.submitter, event.target);
  });
}

onSubmit("account", async ({ email, password }, submitter) => {
  if (submitter?.value === "register" || submitter?.value === "forgot") {
    const { ok } = submitter.value === "register"
      ? await show("POST", "/auth/register", { email, password }, null)
      : await show("POST", "/auth/password/forgot", { email }, null);
    if (ok) $("mail").open = true;
    return;
  }
  const { ok, json } = await show("POST", "/auth/login", { email, password }, null);
  if (ok) {
    await signedIn(json);
  } else if (json?.login_token) {
    state.loginToken = json.login_token;
    await drawMember();
    $("code").focus();
  }
});

onSubmit("factor", async ({ code }, _, form) => {
  const { ok, json } = await show("POST", "/auth/login/totp", { login_token: state.loginToken, code }, null);
  form.reset();
  if (ok) await signedIn(json);
});

onSubmit("verify", async ({ link }, _, form) => {
  const page = /\/(reset|confirm-email)\?/.exec(link);
  if (page) {
    location.assign(link.slice(page.index + 1));
    return;
  }
  const token = link.includes("token=") ? new URL(link, location.href).searchParams.get("token") : link;
  const { ok } = await show("POST", "/auth/verify", { token: token.trim() }, null);
  if (ok) form.reset();
});

onSubmit("new-key", async ({ name }, _, form) => {
  const { ok, json } = await show("POST", "/auth/keys", { name });
  if (!ok) return;
  state.key = json.key;
  document.querySelector("[name=as][value=key]").disabled = false;
  $("key").textContent = `Shown this once: ${json.key}`;
  form.reset();
  await drawKeys();
});

/** The user changed. */
async function again() {
  const { ok, json } = await ask("GET", "/auth/me");
  if (ok) acting().me = json;
  drawFactor();
}

onSubmit("totp", async ({ current_password }, _, form) => {
  const { ok, json } = await show("POST", "/auth/totp", { current_password });
  if (!ok) return;
  form.reset();
  $("secret").textContent = json.secret;
  $("uri").href = json.uri;
  $("totp-confirm").hidden = false;
  drawFactor();
  $("totp-code").focus();
});

onSubmit("totp-confirm", async ({ code }, _, form) => {
  const { ok, json } = await show("POST", "/auth/totp/confirm", { code });
  form.reset();
  if (!ok) return;
  form.hidden = true;
  $("recovery").textContent = `Recovery codes, shown this once: ${json.recovery_codes.join(", ")}`;
  await again();
});

onSubmit("totp-disable", async ({ current_password, code }, _, form) => {
  const { ok } = await show("POST", "/auth/totp/disable", { current_password, code });
  form.reset();
  if (!ok) return;
  $("recovery").textContent = "";
  await again();
});

$("refresh").addEventListener("click", async () => {
  const { ok, json } = await show("POST", "/auth/refresh", { refresh_token: acting().pair.refresh_token }, null);
  await (ok ? signedIn(json) : signedOut());
});
$("logout").addEventListener("click", async () => {
  await show("POST", "/auth/logout", { refresh_token: acting().pair.refresh_token }, null);
  await signedOut();
});
$("logout-all").addEventListener("click", async () => {
  await show("POST", "/auth/logout-all");
  await signedOut();
});

/** The token of whom the next question is asked as; `undefined`: the session's. */
function asked() {
  const as = document.querySelector("[name=as]:checked").value;
  return { key: state.key, nobody: null }[as];
}

let last = "GET /public/status";
for (const choice of document.querySelectorAll("[data-ask]")) {
  choice.addEventListener("click", () => {
    last = choice.dataset.ask;
    const body = choice.dataset.body;
    return show(...last.split(" "), body && JSON.parse(body), asked());
  });
}
$("burst").addEventListener("click", async () => {
  const [method, path] = last.startsWith("GET") ? last.split(" ") : ["GET", "/public/status"];
  const answers = await Promise.all(Array.from({ length: 25 }, () => ask(method, path, undefined, asked())));
  const refused = answers.filter(({ status }) => status === 429).length;
  say(`${method} ${path}, 25 times: ${25 - refused} let through, ${refused} refused`, refused ? "wrong" : "right");
});
