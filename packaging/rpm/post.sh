systemd-sysusers i2plan.conf || :
systemd-tmpfiles --create i2plan.conf || :
if [ -d /run/systemd/system ]; then systemctl --system daemon-reload || :; fi
if [ "$1" -eq 1 ]; then
    systemctl --no-reload preset i2plan.target || :
elif [ -d /run/systemd/system ]; then
    for daemon in routerd keyd connector tund meshd rpcd webd named; do
        timeout 30 systemctl try-restart "i2plan-$daemon.service" || :
    done
    systemctl try-restart --no-block 'i2plan-static@*.service' || :
fi
