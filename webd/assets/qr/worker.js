// Reads QR codes, apart from the page: one that it cannot read in time is given up by ending this worker.
import { decodeQR } from "./decode.js";

addEventListener("message", ({ data }) => {
  let text = null;
  try {
    text = decodeQR(data);
  } catch {
    // There is none, or it is not whole.
  }
  postMessage(text);
});
