// Pictures: small squares of pixels, shown large.

import { bytesOf, css, h, hue, save } from "./dom.js";

const source = (thing) => `data:image/png;base64,${thing.image}`;

export const images = {
  view: "images",
  name: "image",
  thing: "picture",
  things: "pictures",
  act: "Show",
  again: "as the model sees it",
  exact: true,
  files: ".png,.jpg,.jpeg",
  side: 6,

  face(thing, weights = null) {
    const element = h("img", { class: "mini", src: source(thing), alt: "" });
    element.draggable = false;
    const draw = (now = weights) => (element.style.borderColor = now ? css(hue(now)) : "");
    draw();
    return { element, draw };
  },

  async field(pen, things, n, size) {
    const cell = size / n;
    const pictures = await Promise.all(
      things.map((thing) => createImageBitmap(new Blob([bytesOf(thing.image)], { type: "image/png" }))),
    );
    pen.imageSmoothingEnabled = false;
    pictures.forEach((picture, i) =>
      pen.drawImage(
        picture,
        ((i % n) + 0.08) * cell,
        (Math.floor(i / n) + 0.08) * cell,
        cell * 0.84,
        cell * 0.84,
      ),
    );
  },

  pick: (desk, item) => desk.showItem(item),

  stage(desk, host) {
    const large = h("img", { class: "large", alt: "" });
    host.append(large);
    return ({ thing, title }) => {
      large.src = source(thing);
      large.alt = title;
    };
  },

  tools(desk, part) {
    part.downloads.append(
      h("button", {
        type: "button",
        class: "quiet",
        textContent: "PNG",
        "aria-label": "Download as PNG",
        onclick: () =>
          desk.stage &&
          save(new Blob([bytesOf(desk.stage.thing.image)], { type: "image/png" }), "picture.png"),
      }),
    );
  },
};
