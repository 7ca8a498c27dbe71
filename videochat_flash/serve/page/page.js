// One video, one conversation. Whatever comes from the server or the user is text, never markup.
"use strict";

const $ = (id) => document.getElementById(id);
const THUMBNAILS = 12, SAMPLES = 4;
const STAGES = { decode: "Decode video", encode: "Encode clips", prefill: "Read prompt", "decode tokens": "Write answer", evidence: "Evidence" };
let model = "", video = null, turns = [], running = null, sample = 0;

// -- what is said -------------------------------------------------------------------------------------------------------

function state(words, part = null) {
  $("words").textContent = words;
  $("bar").hidden = part === null;
  if (part === null || part < 0) $("bar").removeAttribute("value");
  else $("bar").value = part;
}

function clock(second) {
  const tenths = Math.round(second * 10), minutes = Math.floor(tenths / 600);
  return `${minutes}:${((tenths - minutes * 600) / 10).toFixed(1).padStart(4, "0")}`;
}

function line(kind, text = "") {
  const item = document.createElement("li");
  item.className = kind;
  item.textContent = text;
  $("talk").append(item);
  item.scrollIntoView({ block: "nearest" });
  return item;
}

function failed(words) {
  line("wrong", words);
  state("");
}

async function sentence(reply) {
  try {
    return (await reply.json()).error.message;
  } catch {
    return `The server answered with status ${reply.status}.`;
  }
}

// A reply, if it is one: whatever else the server says is an error in its words.
async function get(place, how) {
  const reply = await fetch(place, how);
  if (!reply.ok) throw new Error(await sentence(reply));
  return reply;
}

function reason(error) {
  return error instanceof TypeError ? "The server cannot be reached." : error.message;
}

// Times in an answer, as 1:23, 1:23.5, 12.5 s or 12 seconds, become buttons that seek.
function linked(item) {
  const times = /\b(?:(\d+):)?(\d+):(\d\d(?:\.\d+)?)\b|\b(\d+(?:\.\d+)?)\s?(?:s|sec|seconds?)\b/g;
  const text = item.textContent, parts = [];
  let at = 0;
  for (const found of text.matchAll(times)) {
    const [hours, minutes, seconds] = found.slice(1, 4).map((part) => Number(part ?? 0));
    const second = found[4] === undefined ? hours * 3600 + minutes * 60 + seconds : Number(found[4]);
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = found[0];
    button.addEventListener("click", () => seek(second));
    parts.push(text.slice(at, found.index), button);
    at = found.index + found[0].length;
  }
  item.replaceChildren(...parts, text.slice(at));
}

function seek(second) {
  $("video").currentTime = second;
  $("video").play().catch(() => {});  // a browser may want a click on the video itself
}

// -- the video ----------------------------------------------------------------------------------------------------------

function choose(file) {
  if (!file) return;
  forget();
  for (const id of ["thumbs", "bars", "stages", "hints"]) $(id).replaceChildren();
  $("unplayable").hidden = true;
  if ($("video").src) URL.revokeObjectURL($("video").src);
  $("video").src = URL.createObjectURL(file);
  $("video").hidden = false;
  const mine = video = { id: null, name: file.name, told: "Uploading …", drawn: false };
  const name = document.createElement("strong");
  name.textContent = file.name;
  $("invite").replaceChildren(name, "Choose another");
  $("drop").classList.add("small");
  const upload = new XMLHttpRequest(), form = new FormData();  // fetch tells no progress of what is sent
  form.append("purpose", "user_data");
  form.append("file", file);
  upload.open("POST", "v1/files");
  upload.responseType = "json";
  upload.upload.addEventListener("progress", (event) => state(mine.told, event.loaded / event.total));
  upload.addEventListener("load", () => {
    running = null;
    $("cancel").hidden = true;
    if (upload.status === 200) {
      mine.id = upload.response.id;
      state(here());
    } else failed(upload.response?.error?.message ?? `The server answered with status ${upload.status}.`);
  });
  upload.addEventListener("error", () => {
    running = null;
    $("cancel").hidden = true;
    failed("The server cannot be reached: choose the video again.");
  });
  upload.addEventListener("abort", () => state("The upload was cancelled."));
  running = upload;
  $("cancel").hidden = false;
  state(mine.told, 0);
  upload.send(form);
  $("question").focus();
}

function here() {
  return `${video.name} is here. Ask about it.`;
}

function stop() {
  running?.abort();
  running = null;
  $("cancel").hidden = true;
}

// What was said, not the video.
function forget() {
  stop();
  turns = [];
  $("talk").replaceChildren();
  for (const id of ["looked", "evidence", "cost", "anew"]) $(id).hidden = true;
}

// A video that the server makes up, with questions about it.
async function takeSample() {
  const place = `samples/${sample++ % SAMPLES}`, before = video;
  $("sample").disabled = true;
  state("A video is being made …", -1);
  try {
    const { questions } = await (await get(place)).json(), film = await (await get(`${place}.mp4`)).blob();
    if (video !== before) return; // another one was chosen meanwhile
    choose(new File([film], "made-up.mp4", { type: "video/mp4" }));
    $("hints").replaceChildren(...questions.map((words) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = words;
      button.addEventListener("click", async () => await submit(words) && button.remove());
      return button;
    }));
  } catch (error) {
    failed(reason(error));
  } finally {
    $("sample").disabled = false;
  }
}

// -- questions ----------------------------------------------------------------------------------------------------------

function content(words) {
  const text = { type: "text", text: words };
  return video?.id && !turns.length ? [{ type: "video_url", video_url: { url: video.id } }, text] : [text];
}

// A promise of whether it is answered; null for what is not even asked.
function submit(words) {
  if (!words) return null;
  if (running) {
    if (!video.id) $("words").textContent = video.told = "Wait for the upload …";
  } else if (!video) failed("Choose a video first.");
  else if (!video.id) failed("The video has not been uploaded: choose it again.");
  else if (!model) failed("The model is still being loaded: try again in a moment.");
  else return ask(words);
  return null;
}

async function ask(words) {
  const mine = new AbortController();
  running = mine;
  $("cancel").hidden = false;
  $("anew").hidden = $("send").disabled = true;
  line("user", words);
  const question = { role: "user", content: content(words) };
  const options = { include_usage: true, include_progress: true };
  const body = { model, messages: [...turns, question], stream: true, stream_options: options, evidence: true };
  const item = line("assistant");
  state("Waiting …", -1);
  try {
    const headers = { "Content-Type": "application/json" };
    const reply = await get("v1/chat/completions", { method: "POST", headers, body: JSON.stringify(body), signal: mine.signal });
    await read(reply.body, item);
    turns.push(question, { role: "assistant", content: item.textContent });
    linked(item);
    state("");
    return true;
  } catch (error) {
    if (!item.textContent) item.remove();
    if (!mine.signal.aborted) failed(reason(error));
    else if (!running) state("Cancelled.");  // else by another video, whose upload is told of
    return false;
  } finally {
    if (running === mine) stop();
    $("send").disabled = false;
    $("anew").hidden = !turns.length;
  }
}

async function read(stream, item) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n\n");
    rest = lines.pop();
    for (const one of lines) heard(one, item);
  }
}

function heard(words, item) {
  const seen = words.match(/^: seen (\d+) of (\d+)/);
  if (seen) state(`Seeing: ${seen[1]} of ${seen[2]} frames`, seen[1] / seen[2]);
  if (!words.startsWith("data: {")) return;
  const told = JSON.parse(words.slice(6));
  if (told.error) throw new Error(told.error.message);
  const piece = told.choices[0]?.delta?.content;
  if (piece) {
    item.textContent += piece;
    item.scrollIntoView({ block: "nearest" });
    state("Answering …", -1);
  }
  if (told.evidence) drawEvidence(told.evidence);
  if (told.usage) drawCost(told.usage);
}

// -- what it took, and when it looked -----------------------------------------------------------------------------------

function drawCost(usage) {
  const layers = usage.visual_tokens_per_layer, kept = layers.length ? layers[layers.length - 1] : 0;
  const steps = [["frames", usage.frames], ["visual tokens", usage.visual_tokens], ["kept to the last layer", kept]];
  $("flow").replaceChildren(...steps.map(([name, count]) => {
    const item = document.createElement("li"), number = document.createElement("strong");
    number.textContent = count.toLocaleString("en");
    item.append(number, ` ${name}`);
    return item;
  }));
  const spent = Object.entries(usage.seconds), most = Math.max(...spent.map(([, seconds]) => seconds), 1e-9);
  $("seconds").replaceChildren(...spent.flatMap(([name, seconds]) => {
    const term = document.createElement("dt"), told = document.createElement("dd"), fill = document.createElement("i");
    term.textContent = STAGES[name] ?? name;
    fill.style.width = `${100 * seconds / most}%`;
    told.append(fill, `${seconds.toFixed(2)} s`);
    return [term, told];
  }));
  const made = usage.completion_tokens.toLocaleString("en");
  $("rows").textContent = `Rows of the prompt: ${usage.prompt_tokens.toLocaleString("en")}. Tokens of the answer: ${made}.`;
  $("looked").hidden = $("cost").hidden = false;
}

function drawEvidence(told) {
  const clips = told.seconds[0], shares = told.attention[0], most = Math.max(...shares, 1e-12);
  const whole = Math.max(...told.stages.map((stage) => Math.max(...stage.kept[0])), 1);
  $("bars").replaceChildren(...clips.map(([first, last], number) => {
    const button = document.createElement("button"), fill = document.createElement("span");
    const kept = told.stages.map((stage) => `${Math.round(100 * stage.kept[0][number] / whole)} % kept from layer ${stage.layer} on`);
    button.type = "button";
    button.tabIndex = number ? -1 : 0;
    button.title = [`${clock(first)} to ${clock(last)}`, `${(100 * shares[number]).toFixed(1)} % of the attention`, ...kept].join(", ");
    button.setAttribute("aria-label", button.title);
    button.dataset.first = first;
    button.classList.toggle("most", shares[number] === most);
    button.addEventListener("click", () => seek(first));
    fill.style.height = `${100 * shares[number] / most}%`;
    button.append(fill);
    return button;
  }));
  $("stages").replaceChildren(...told.stages.flatMap((stage) => {
    const words = document.createElement("p"), strip = document.createElement("div");
    const left = stage.kept[0].reduce((sum, count) => sum + count, 0);
    words.className = "quiet";
    words.textContent = `Kept from layer ${stage.layer} on: ${left.toLocaleString("en")} tokens`;
    strip.className = "stage";
    strip.setAttribute("aria-hidden", "true");
    strip.append(...stage.kept[0].map((count) => {
      const cell = document.createElement("span"), fill = document.createElement("i");
      fill.style.opacity = count / whole;
      cell.append(fill);
      return cell;
    }));
    return [words, strip];
  }));
  $("legend").textContent = `Attention of the question's last token to each clip, in layer ${told.layer}. Choose a clip to play from there.`;
  $("axis").replaceChildren(...[0, .25, .5, .75, 1].map((part) => {
    const mark = document.createElement("span");
    mark.textContent = clock(clips[0][0] + part * (clips[clips.length - 1][1] - clips[0][0]));
    return mark;
  }));
  $("looked").hidden = $("evidence").hidden = false;
  if (!video.drawn) drawThumbs(clips);
  video.drawn = true;
}

async function drawThumbs(clips) {
  const mine = video, canvases = [], player = document.createElement("video");
  const first = clips[0][0], last = clips[clips.length - 1][1];
  player.muted = true;
  player.preload = "auto";
  player.src = $("video").src;
  const event = (name) => new Promise((done, wrong) => {
    player.addEventListener(name, done, { once: true });
    player.addEventListener("error", wrong, { once: true });
  });
  try {
    await event("loadeddata");
    for (let i = 0; i < THUMBNAILS; i++) {
      const came = event("seeked");
      player.currentTime = first + (i + .5) / THUMBNAILS * (last - first);
      await came;
      if (video !== mine) return;  // another one was chosen meanwhile
      const canvas = document.createElement("canvas");
      canvas.width = 160;
      canvas.height = Math.round(160 * player.videoHeight / player.videoWidth);
      canvas.getContext("2d").drawImage(player, 0, 0, canvas.width, canvas.height);
      canvases.push(canvas);
    }
    $("thumbs").replaceChildren(...canvases);
  } catch { /* a format that the browser cannot play */ }
}

// -- beginnings ---------------------------------------------------------------------------------------------------------

async function begin() {
  while (!model) {
    try {
      if ((await fetch("ready")).ok) model = (await (await get("v1/models")).json()).data[0].id;
      else if (!running) state("The model is being loaded …", -1);
    } catch (error) {
      if (!running) state(reason(error));
    }
    if (!model) await new Promise((done) => setTimeout(done, 2000));
  }
  $("model").textContent = `Ask ${model} about a video.`;
  if (!running) state(video?.id ? here() : "Choose a video.");
}

$("file").addEventListener("change", (event) => {
  choose(event.target.files[0]);
  event.target.value = "";  // so that the same file can be chosen again
});
for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    if (!event.dataTransfer.types.includes("Files")) return;  // words may be dropped into the question
    event.preventDefault();
    $("drop").classList.toggle("over", name === "dragover");
    if (name === "drop") choose(event.dataTransfer.files[0]);
  });
}
$("video").addEventListener("error", () => {
  $("video").hidden = true;
  $("unplayable").hidden = !$("video").src;
});
$("video").addEventListener("timeupdate", () => {
  const buttons = [...$("bars").children];
  const now = buttons.findLastIndex((button) => Number(button.dataset.first) <= $("video").currentTime + .05);
  buttons.forEach((button, number) => button.classList.toggle("now", number === now));
});
$("bars").addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity }[event.key];
  if (step === undefined) return;
  event.preventDefault();
  const buttons = [...$("bars").children], at = buttons.indexOf(document.activeElement);
  const next = buttons[Math.min(buttons.length - 1, Math.max(0, at + step))];
  buttons.forEach((button) => (button.tabIndex = button === next ? 0 : -1));
  next.focus();
});
$("sample").addEventListener("click", takeSample);
$("cancel").addEventListener("click", stop);
$("anew").addEventListener("click", () => { forget(); state(here()); $("question").focus(); });
$("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("ask").requestSubmit();
  }
});
$("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  const words = $("question").value.trim(), answered = submit(words);
  if (!answered) return;
  $("question").value = "";
  if (!await answered) $("question").value ||= words;  // to be asked again, unless another one is being written
});
begin();
