// The page of one session: it waits while the session starts or wakes, shows its stream, and attaches again when that is
// cut. The server is asked how the session stands; what is shown follows from the answer alone.

import './policy.js';
import './session.css';

import { Api, Refusal } from './api.js';
import { Backoff } from './flow.js';
import { View } from './view.js';

/** What shows which protocol. Each comes when it is needed. */
const viewers = {
  terminal: () => import('./terminal.js'),
  vnc: () => import('./desktop.js'),
  http: () => import('./application.js'),
};

/** Between two looks at a session that starts, in front of a person and behind their back. */
const WAITING = [1_000, 5_000];
/** Between two looks at a session that sleeps, or whose stream is watched. */
const WATCHING = [5_000, 30_000];
/** So many looks in a row without an answer, and a stream that stands still is taken for dead. */
const DEAF = 3;
/** A stream that stood so long was a good one. */
const GOOD = 10_000;

const data = document.body.dataset;
const page = { session: data.session, org: data.org, token: data.token, mode: data.mode, name: data.name };
const api = new Api(page);
const view = new View();
const backoff = new Backoff();
let viewer = null;

/** What is kept from visit to visit; a browser that keeps nothing loses nothing but that. */
const settings = {
  get(name) {
    try {
      return localStorage.getItem(name);
    } catch {
      return null;
    }
  },
  set(name, value) {
    try {
      localStorage.setItem(name, value);
    } catch {
      // Then it is so for this visit.
    }
  },
};

const pause = (milliseconds) => new Promise((wake) => setTimeout(wake, milliseconds));
const between = ([seen, unseen]) => pause(document.visibilityState === 'visible' ? seen : unseen);

/** Resolves when somebody can see the page. */
async function shown() {
  while (document.visibilityState !== 'visible') {
    await new Promise((tell) => document.addEventListener('visibilitychange', tell, { once: true }));
  }
}

/** The states as the page names them. */
const words = {
  pending: 'starting',
  running: 'running',
  hibernating: 'falling asleep',
  hibernated: 'asleep',
  waking: 'waking',
  terminating: 'ending',
  terminated: 'ended',
  failed: 'failed',
};

async function run() {
  for (;;) {
    let seen;
    try {
      seen = await api.state();
    } catch (error) {
      if (!(await overcome(error))) return;
      continue;
    }
    view.state(words[seen.state] ?? seen.state, seen.state);
    if (await step(seen)) return;
  }
}

/** Does what a state asks for; true when there is nothing left to do. */
async function step(seen) {
  switch (seen.state) {
    case 'running':
      if (seen.protocol === 'terminal' || seen.streamingReady) return attend(seen);
      return wait('Almost there', 'It runs, and gets ready to be shown.', seen);
    case 'pending':
      return wait('Starting', 'The session starts. This page goes on by itself.', seen);
    case 'waking':
      return wait('Waking', 'The session wakes. This page goes on by itself.', seen);
    case 'hibernating':
      return wait('Falling asleep', 'Its processes stop and its home is kept.', seen);
    case 'terminating':
      return wait('Ending', 'The session ends.', seen);
    case 'hibernated':
      return asleep(seen);
    default:
      over(seen);
      return true;
  }
}

async function wait(title, line, seen) {
  // What an agent says of how far it is belongs to a start; afterwards it is old.
  const progress = seen.state === 'pending' || seen.state === 'waking' ? seen.progress : '';
  view.panel({ title, lines: [line, progress, seen.reason], busy: true });
  await between(WAITING);
  return false;
}

async function asleep(seen) {
  const lines = ['Its processes are stopped and its home is kept.', seen.reason];
  view.panel({ title: 'Asleep', lines, buttons: [{ name: 'wake', label: 'Wake it' }] });
  if ((await Promise.race([view.choice(), between(WATCHING)])) !== 'wake') return false;
  try {
    await api.connect();
  } catch (error) {
    return !(await overcome(error));
  }
  return false;
}

function over(seen) {
  const failed = seen.state === 'failed';
  const left = exitWords(seen.exitCode);
  const what = failed
    ? 'Read what it printed, put right what the reason names, and start another one:'
    : 'What it had in a persistent home is still there for the next one:';
  const logs = `tidegate logs ${page.session}\n`;
  view.panel({
    title: failed ? 'The session failed' : 'The session has ended',
    lines: [seen.reason, left, what],
    code: `${failed ? logs : ''}tidegate run ${seen.template}`,
    home: true,
  });
}

const exitWords = (code, signal) => {
  if (code === null || code === undefined) return '';
  return signal ? `Its program was ended by ${signal}.` : `Its program left with code ${code}.`;
};

/** Shows the stream until it ends; true when there is nothing left to do. */
async function attend(seen) {
  let connection;
  try {
    connection = await api.connect();
  } catch (error) {
    // It changed since it was looked at: the next look says how.
    if (error instanceof Refusal && error.status === 409) {
      await between(WAITING);
      return false;
    }
    return !(await overcome(error));
  }
  if (connection.state !== 'running') return false;
  view.session();
  viewer ??= (await viewers[connection.kind]()).create({ page, view, api, settings });
  view.session();
  view.offerFocus(() => viewer.focus());
  const began = Date.now();
  const ending = await watched(viewer.watch(connection), seen.protocol);
  if (Date.now() - began > GOOD) backoff.reset();
  return ended(ending);
}

/** Looks at the session beside its stream: the page's head follows, and a stream without a server is given up. */
async function watched(watching, protocol) {
  let on = true;
  let deaf = 0;
  const look = async () => {
    for (;;) {
      await between(WATCHING);
      if (!on) return;
      try {
        const seen = await api.state();
        deaf = 0;
        view.state(words[seen.state] ?? seen.state, seen.state);
        // A frame does not notice by itself that there is nothing behind it.
        if (protocol === 'http' && seen.state !== 'running') viewer.leave();
      } catch (error) {
        deaf += 1;
        const shutOut = error instanceof Refusal && !error.passes;
        if (on && (deaf >= DEAF || shutOut)) viewer.leave(protocol === 'terminal' ? 4001 : undefined);
      }
    }
  };
  look();
  const ending = await watching;
  on = false;
  return ending;
}

async function ended(ending) {
  switch (ending.kind) {
    case 'over':
      await between(WAITING);
      return false;
    case 'again':
      if (ending.quick) {
        // Behind a person's back browsers let a page do next to nothing: it would be too much again at once.
        await shown();
        return false;
      }
      view.state('attaching again', 'lost');
      view.banner(ending.opened ? 'The stream was cut. Attaching again…' : 'The session cannot be reached. Trying again…');
      await pause(backoff.next());
      return false;
    case 'refused':
      return !(await refused('The stream was closed', ending.why));
    default:
      await left(ending);
      return true;
  }
}

/** The program ended: what it printed stays, and the page's head follows the session to its end. */
async function left({ code, signal }) {
  const said = exitWords(code, signal);
  view.banner(said);
  for (;;) {
    try {
      const { state } = await api.state();
      view.state(words[state] ?? state, state);
      if (state === 'terminated' || state === 'failed') return;
    } catch (error) {
      if (error instanceof Refusal && !error.passes) return;
    }
    await between(WAITING);
  }
}

/** Deals with a refusal; false when somebody has to do something somewhere else first. */
async function overcome(error) {
  if (error instanceof Refusal && error.status === 401) {
    const to = encodeURIComponent(location.pathname + location.search);
    location.assign(`/login?next=${to}`);
    return false;
  }
  if (error instanceof Refusal && !error.passes) return refused('This did not work', error.message);
  const why = error instanceof Refusal ? error.message : 'the page did something wrong';
  view.state('no answer', 'lost');
  const line = `${why}. Trying again…`;
  if (viewer && !view.stage.hidden) view.banner(line);
  else view.panel({ title: 'No answer', lines: [line], busy: true });
  await pause(Math.max(backoff.next(), (error.retryAfter ?? 0) * 1_000));
  return true;
}

/** Says why, and tries again when somebody asks for it. */
async function refused(title, why) {
  view.state('not shown', 'failed');
  const buttons = [{ name: 'again', label: 'Try again' }];
  if (page.mode === 'control') buttons.push({ name: 'view', label: 'Only watch' });
  view.panel({ title, lines: [why], buttons, home: true });
  if ((await view.choice()) === 'view') {
    const only = new URL(location.href);
    only.searchParams.set('mode', 'view');
    location.assign(only);
    return false;
  }
  return true;
}

if (document.fullscreenEnabled) {
  view.tool('Full screen', () => {
    view.stage.requestFullscreen().then(() => viewer?.focus(), () => {});
  });
}
run();
