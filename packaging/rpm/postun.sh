if [ -d /run/systemd/system ]; then systemctl --system daemon-reload || :; fi
if [ "$1" -eq 0 ]; then
    rm -rf /run/i2plan /run/i2plan-static
    # rpm knows of the files in these alone.
    for directory in /usr/libexec/i2plan /usr/share/licenses/i2plan /usr/share/doc/i2plan/examples \
        /usr/share/doc/i2plan/docs /usr/share/doc/i2plan /etc/i2plan; do
        rmdir --ignore-fail-on-non-empty "$directory" 2>/dev/null || :
    done
fi
