import pytest, paraschut as psu, os
pytestmark = pytest.mark.process

def test_a(world):
    world.add("ls -l /proc/self/fd > fds; cat /proc/self/status | grep -i -E 'sig|cpus_allowed_list' >> fds; env >> fds")
    print(psu.submit_jobs())
    world.until_complete()
    print(open("fds").read())
    import time; time.sleep(0.5)
    os.system("ls -R jobs; cat jobs/agent/*/ends*")
