"""A page in a real browser without a screen."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

# What a reader would see go wrong: something from elsewhere, a page that is broader than the window, text that lies on
# other text or outside of the drawing, text that is hard to tell from its background.
_LOOK = """
const texts = [...document.querySelectorAll("svg text")].map(text => [text.textContent, text.getBoundingClientRect()]);
const drawing = document.querySelector("svg").getBoundingClientRect();
const apart = (a, b) => a.right <= b.left || b.right <= a.left || a.bottom - 3 <= b.top || b.bottom - 3 <= a.top;
const light = color => {
  const [r, g, b] = color.match(/[\\d.]+/g).slice(0, 3).map(part => part / 255)
    .map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = element => {
  for (; element; element = element.parentElement) {
    const color = getComputedStyle(element).backgroundColor;
    if (!color.startsWith("rgba(0, 0, 0, 0")) return color;
  }
  return "rgb(255, 255, 255)";
};
const contrast = element => {
  const [low, high] = [light(getComputedStyle(element).color), light(behind(element))].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
};
const seen = {
  dark: matchMedia("(prefers-color-scheme: dark)").matches,
  page: light(getComputedStyle(document.body).backgroundColor),
  requests: performance.getEntriesByType("resource").map(entry => entry.name),
  tooBroad: document.documentElement.scrollWidth > innerWidth,
  outside: texts.filter(([, box]) => box.left < drawing.left || box.right > drawing.right
    || box.bottom > drawing.bottom).map(([text]) => text),
  overlapping: texts.flatMap(([one, a], index) => texts.slice(index + 1).filter(([, b]) => !apart(a, b))
    .map(([other]) => [one, other])),
  faint: [...document.querySelectorAll("h1, h2, p, span, td, li, dd, dt, summary, footer, figcaption")]
    .filter(element => element.textContent.trim() && contrast(element) < 4.5).map(element => element.outerHTML),
  deadLinks: [...document.querySelectorAll("a")].map(link => link.getAttribute("href"))
    .filter(href => !document.querySelector(href)),
  words: document.body.innerText,
};
document.body.innerHTML = "<pre id=seen></pre>";
document.getElementById("seen").textContent = JSON.stringify(seen);
"""


class NoBrowserError(Exception):
    """There is no chromium here, and none can be installed."""


def look(page: Path, *, dark: bool, width: int = 1280) -> dict[str, Any]:
    """What chromium makes of a page that has no script of its own."""
    probe = page.with_name(f"probe-{page.name}")
    probe.write_text(page.read_text().replace("</body>", f"<script>{_LOOK}</script></body>"))
    profile = page.with_name("chromium")
    command = [
        chromium(),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={profile}",
        f"--blink-settings=preferredColorScheme={0 if dark else 1}",
        f"--window-size={width},900",
        "--dump-dom",
        probe.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    seen: dict[str, Any] = json.loads(html.unescape(found[1]))
    return seen


def chromium() -> str:
    """Installed from Debian where it is missing. Raises `NoBrowserError`."""
    if found := shutil.which("chromium"):
        return found
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise NoBrowserError("chromium is missing and cannot be installed: that needs Debian's apt-get, and root")
    install = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", "chromium", "fonts-dejavu-core"]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (install, ["apt-get", "update", "--quiet"], install):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
        if found := shutil.which("chromium"):
            return found
    raise NoBrowserError(f"chromium cannot be installed: {done.stderr.strip()}")
