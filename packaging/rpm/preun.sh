if [ "$1" -eq 0 ]; then
    if [ -d /run/systemd/system ]; then
        systemctl disable --now i2plan.target i2plan-routerd.service i2plan-named.service i2plan-webd-http.socket || :
        systemctl stop i2plan-keyd-meshd.socket i2plan-keyd-tund.socket i2plan-keyd-connector.socket i2plan-keyd-control.socket \
            i2plan-meshd.socket i2plan-tund.socket i2plan-tund-wireguard.socket i2plan-rpcd.socket i2plan-rpcd.service \
            i2plan-webd.socket i2plan-webd-http.socket i2plan-webd.service i2plan-named.service i2plan-meshd.service \
            i2plan-tund.service i2plan-connector.service i2plan-keyd.service \
            i2plan-routerd.service 'i2plan-static@*.service' || :
    fi
    if [ -e /var/lib/i2plan/keyd/keys ]; then
        echo "i2plan: this node's keys and its membership stay in /var/lib/i2plan."
    fi
    if [ -e /var/lib/i2plan-static ]; then
        echo "i2plan: the keys of interfaces with static peers stay in /var/lib/i2plan-static."
    fi
fi
