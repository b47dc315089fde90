package byoc;

import com.amazonaws.ml.mms.wlm.Model;
import com.amazonaws.ml.mms.wlm.ModelManager;
import com.amazonaws.ml.mms.wlm.WorkerThread;
import io.netty.channel.Channel;
import java.io.File;
import java.util.HashSet;
import java.util.Set;

/** Files of workers that were killed, which could not remove them: their sockets, and the named pipes of their output. */
final class Leftovers {
    private static final File FOLDER = new File(System.getProperty("java.io.tmpdir"));
    private static final String SOCKET = ".mms.sock.";
    private static final String[] PIPES = {"-stdout", "-stderr"};

    private Leftovers() {}

    static void remove() throws ReflectiveOperationException {
        // First the files: whose they are is known before they are made, so that those of nobody known are left over.
        File[] files = FOLDER.listFiles((folder, name) -> name.startsWith(SOCKET)
                || name.endsWith(PIPES[0]) || name.endsWith(PIPES[1]));
        if (files == null) {
            return;
        }
        Set<String> used = used();
        for (File file : files) {
            if (!used.contains(file.getName())) {
                file.delete();
            }
        }
    }

    private static Set<String> used() throws ReflectiveOperationException {
        Set<String> used = new HashSet<>();
        ModelManager models = ModelManager.getInstance();
        for (Model model : models.getModels().values()) {
            used.add(SOCKET + model.getPort());
            for (WorkerThread worker : Health.workers(model.getModelName())) {
                Channel channel = (Channel) Streams.field("backendChannel").get(worker);
                for (String pipe : PIPES) {
                    used.add(channel == null ? "" : channel.id().asLongText() + pipe);
                }
            }
        }
        return used;
    }
}
