if [ -d /run/systemd/system ]; then systemctl --system daemon-reload || :; fi
if [ "$1" -eq 0 ]; then rm -rf /run/i2plan; fi
