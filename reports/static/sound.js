// The waveform shows where the sound is, and takes a click to go there.
for (const box of document.querySelectorAll(".sound")) {
  const wave = box.querySelector(".wavebox");
  const players = [...box.querySelectorAll("audio")];
  if (!players.length) continue;
  const line = document.createElement("div");
  line.className = "playhead";
  line.hidden = true;
  wave.append(line);
  let last = players[0];
  for (const player of players) {
    player.addEventListener("play", () => {
      for (const other of players) if (other !== player) other.pause();
      last = player;
    });
    player.addEventListener("timeupdate", () => {
      line.hidden = false;
      line.style.left = `${(100 * player.currentTime) / (player.duration || 1)}%`;
    });
  }
  wave.addEventListener("click", (event) => {
    const share = (event.clientX - wave.getBoundingClientRect().left) / wave.clientWidth;
    const go = () => (last.currentTime = share * last.duration);
    if (last.readyState) go();
    else {
      last.addEventListener("loadedmetadata", go, { once: true });
      last.load();
    }
  });
}
