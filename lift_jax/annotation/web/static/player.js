/** Plays one clip, or two in step, with one set of controls. */

import * as storage from './storage.js';

const TOLERANCE = 0.06;  // seconds that two clips may be apart

/** Each view of the page holds two video elements: the one that is shown, and
 * one that loads the next clip meanwhile. */
export class Player {
  constructor(element, onBroken) {
    this.element = element;
    this.onBroken = onBroken;
    this.views = [...element.querySelectorAll('.view')].map((view) => [
      ...view.querySelectorAll('video'),
    ]);
    this.control = (name) => element.querySelector(`[data-control=${name}]`);
    this.clips = [];
    this.settings = storage.read('player') ?? {
      rate: 1, muted: true, volume: 0.5,
    };
    for (const video of this.views.flat()) this.#listen(video);
    this.#connectControls();
    this.#applySettings();
  }

  get videos() {
    return this.views.slice(0, this.clips.length).map(([shown]) => shown);
  }

  /** Shows clips and plays them; those that were prepared start at once. */
  show(clips) {
    this.clips = clips;
    for (const [index, view] of this.views.entries()) {
      const clip = clips[index];
      view[0].parentElement.hidden = !clip;
      if (!clip) {
        view[0].pause();
        continue;
      }
      if (view[1].getAttribute('src') === clip.url) view.reverse();
      const [shown, spare] = view;
      if (shown.getAttribute('src') !== clip.url) shown.src = clip.url;
      shown.hidden = false;
      spare.hidden = true;
      spare.pause();
      // A single clip loops without a gap; two wait for each other.
      shown.loop = clips.length === 1;
    }
    this.seek(0);
    this.#applySettings();
    this.play();
    for (const video of this.videos) {
      if (video.error) this.onBroken(video);
    }
  }

  prepare(clips) {
    for (const [index, clip] of clips.entries()) {
      const [shown, spare] = this.views[index];
      const sources = [shown, spare].map((v) => v.getAttribute('src'));
      if (!sources.includes(clip.url)) spare.src = clip.url;
    }
  }

  clear() {
    this.clips = [];
    for (const video of this.views.flat()) {
      video.removeAttribute('src');
      video.load();
    }
  }

  play() {
    for (const video of this.videos) {
      video.play().catch((error) => {
        // With sound, a browser may refuse to start by itself.
        if (error.name !== 'NotAllowedError' || video.muted) return;
        this.change({muted: true});
        video.play().catch(() => this.#draw());
      });
    }
  }

  pause() {
    for (const video of this.videos) video.pause();
  }

  toggle() {
    if (this.paused) this.play();
    else this.pause();
  }

  get paused() {
    return this.videos.every((video) => video.paused);
  }

  /** Shows the frame that is `count` after this one. */
  step(count) {
    this.pause();
    const fps = this.clips[0]?.fps;
    if (!fps) return;
    const frame = Math.floor(this.#longest().currentTime * fps + 1e-3);
    // The middle of a frame, as its start may round to the one before.
    this.seek((Math.max(frame + count, 0) + 0.5) / fps);
  }

  seek(seconds) {
    for (const video of this.videos) {
      const end = Number.isFinite(video.duration) ? video.duration : Infinity;
      video.currentTime = Math.min(seconds, Math.max(end - 1e-3, 0));
    }
  }

  changeRate(steps) {
    const select = this.control('rate');
    const index = select.selectedIndex + steps;
    if (index < 0 || index >= select.length) return;
    this.change({rate: Number(select.options[index].value)});
  }

  change(settings) {
    Object.assign(this.settings, settings);
    storage.write('player', this.settings);
    this.#applySettings();
  }

  toggleFullScreen() {
    if (document.fullscreenElement) document.exitFullscreen();
    else if (this.element.requestFullscreen) this.element.requestFullscreen();
    // Phones of Apple show only the video itself.
    else this.videos[0].webkitEnterFullscreen();
  }

  #longest() {
    return this.videos.reduce((a, b) => (b.duration > a.duration ? b : a));
  }

  #applySettings() {
    const {rate, muted, volume} = this.settings;
    for (const video of this.views.flat()) {
      video.defaultPlaybackRate = video.playbackRate = rate;
      video.muted = muted;
      video.volume = volume;
    }
    this.control('rate').value = String(rate);
    this.control('volume').value = muted ? 0 : volume;
    this.#draw();
  }

  #connectControls() {
    const click = (name, action) => {
      this.control(name).addEventListener('click', action);
    };
    click('play', () => this.toggle());
    click('back', () => this.step(-1));
    click('forward', () => this.step(1));
    click('mute', () => this.change({muted: !this.settings.muted}));
    click('full', () => this.toggleFullScreen());
    this.control('rate').addEventListener('change', (event) => {
      this.change({rate: Number(event.target.value)});
    });
    this.control('volume').addEventListener('input', (event) => {
      const volume = Number(event.target.value);
      this.change(volume ? {volume, muted: false} : {muted: true});
    });
    this.control('position').addEventListener('input', (event) => {
      this.pause();
      this.seek(Number(event.target.value) * this.#longest().duration);
    });
  }

  #listen(video) {
    const shown = () => this.videos.includes(video);
    for (const name of ['timeupdate', 'play', 'pause', 'loadedmetadata', 'seeked']) {
      video.addEventListener(name, () => shown() && this.#draw());
    }
    video.addEventListener('click', () => this.toggle());
    video.addEventListener('timeupdate', () => shown() && this.#align(video));
    video.addEventListener('ended', () => shown() && this.#restart());
    video.addEventListener('error', () => {
      if (shown() && video.hasAttribute('src')) this.onBroken(video);
    });
  }

  /** Keeps the second clip where the first one is. */
  #align(video) {
    const [first, second] = this.videos;
    if (!second || video !== first || first.paused || first.seeking) return;
    if (second.ended || second.seeking) return;
    const target = Math.min(first.currentTime, second.duration);
    if (Math.abs(second.currentTime - target) > TOLERANCE) {
      second.currentTime = target;
    }
  }

  /** The shorter of two clips waits at its end for the longer one. */
  #restart() {
    if (!this.videos.every((video) => video.ended)) return;
    this.seek(0);
    this.play();
  }

  #draw() {
    const play = this.control('play');
    play.setAttribute('aria-label', this.paused ? 'Play' : 'Pause');
    play.dataset.state = this.paused ? 'paused' : 'playing';
    const mute = this.control('mute');
    mute.setAttribute('aria-label', this.settings.muted ? 'Unmute' : 'Mute');
    mute.dataset.state = this.settings.muted ? 'muted' : 'loud';
    const [clip] = this.clips;
    if (!clip) return;
    const video = this.#longest();
    if (!Number.isFinite(video.duration)) return;
    this.control('position').value = video.currentTime / video.duration;
    const frames = Math.max(Math.round(video.duration * clip.fps), 1);
    const frame = Math.min(
      Math.floor(video.currentTime * clip.fps + 1e-3) + 1, frames,
    );
    this.control('frame').textContent = `Frame ${frame} of ${frames}`;
  }
}
