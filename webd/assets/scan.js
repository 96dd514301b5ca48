// Reads an invite from a picture or from the camera into the form. Pictures stay in this browser.

// The longest edge of what is looked at, in pixels, and how long that may take.
const EDGE = 1280;
const PATIENCE = 5000;
const FRAME = 500;

const field = document.querySelector("textarea[name=code]");
const file = document.getElementById("scan-file");
const button = document.getElementById("scan-camera");
const video = document.getElementById("scan-video");
const result = document.getElementById("scan-result");

const say = (text) => { result.textContent = text; };

// The text of a QR code in a picture; none if there is none.
let worker = null;
function read(source, width, height) {
  const scale = Math.min(1, EDGE / Math.max(width, height));
  const canvas = new OffscreenCanvas(Math.max(1, width * scale), Math.max(1, height * scale));
  const context = canvas.getContext("2d");
  // What is transparent is white.
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(source, 0, 0, canvas.width, canvas.height);
  const image = context.getImageData(0, 0, canvas.width, canvas.height);
  worker ??= new Worker("/qr/worker.js", { type: "module" });
  return new Promise((done) => {
    const end = (text) => {
      clearTimeout(timer);
      if (text === undefined) {
        worker.terminate();
        worker = null;
      }
      done(text ?? null);
    };
    const timer = setTimeout(end, PATIENCE);
    worker.onmessage = ({ data }) => end(data);
    worker.onerror = () => end(undefined);
    worker.postMessage({ width: image.width, height: image.height, data: image.data });
  });
}

// Whether a text is an invite, which is in the form then.
function take(text) {
  if (!text.startsWith("i2plan://")) {
    say("This QR code is no invite.");
    return false;
  }
  field.value = text;
  say("The invite is in the form above.");
  return true;
}

file.addEventListener("change", async () => {
  if (!file.files.length) return;
  say("Reading the picture…");
  try {
    const picture = await createImageBitmap(file.files[0]);
    const text = await read(picture, picture.width, picture.height);
    if (text === null) say("There is no QR code in this picture that can be read.");
    else take(text);
  } catch {
    say("This file is no picture that the browser can read.");
  }
  // The same file may be chosen again.
  file.value = "";
});

let camera = null;
function stop() {
  camera?.getTracks().forEach((track) => track.stop());
  camera = null;
  video.hidden = true;
  button.textContent = "Use the camera";
}

async function look() {
  if (!camera) return;
  if (video.videoWidth > 0) {
    const text = await read(video, video.videoWidth, video.videoHeight);
    if (camera && text !== null && take(text)) stop();
  }
  if (camera) setTimeout(look, FRAME);
}

button.addEventListener("click", async () => {
  if (camera) {
    stop();
    say("");
    return;
  }
  try {
    camera = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    say(`The camera cannot be used: ${error.message}.`);
    return;
  }
  video.srcObject = camera;
  video.hidden = false;
  button.textContent = "Stop the camera";
  say("Hold the QR code before the camera.");
  await video.play();
  look();
});
