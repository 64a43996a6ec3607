"use strict";
const clock = document.getElementById("clock");
const show = () => { clock.textContent = new Date().toLocaleString(); };
show();
setInterval(show, 1000);
