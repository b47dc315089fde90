package byoc;

import com.google.gson.JsonObject;
import java.io.BufferedReader;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.nio.charset.StandardCharsets;

/**
 * The words of the Python supervisor on our standard input: every half second one word, its state
 * (starting, ready, draining). No word for a while means that it hangs; end of input, that it died.
 *
 * Each word is answered over a pipe by what {@link Health} reports, a line of JSON: callers who keep all connections busy
 * cannot make the supervisor believe that nobody is there.
 */
final class Supervisor {
    private static final long STALE_NANOS = 3_000_000_000L;

    private static volatile String state = "starting";
    private static volatile long heard = System.nanoTime();

    private Supervisor() {}

    /** `pipe`: the file that reports go to. */
    static void listen(InputStream input, String pipe) {
        Thread thread = new Thread(() -> read(input, pipe), "supervisor");
        thread.setDaemon(true);
        thread.start();
    }

    private static void read(InputStream input, String pipe) {
        try (BufferedReader lines = new BufferedReader(new InputStreamReader(input, StandardCharsets.US_ASCII));
                OutputStream answers = new FileOutputStream(pipe)) {
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                state = line;
                heard = System.nanoTime();
                Health.workers.endStuck(Health.settings.timeoutSeconds + 1); // whose callers have been answered 504
                JsonObject report = Health.report();
                report.addProperty("failure", Health.failure());
                answers.write((report + "\n").getBytes(StandardCharsets.UTF_8));
            }
        } catch (IOException ignored) {
            // the same as its end
        }
        Runtime.getRuntime().halt(1);
    }

    /** starting, ready, draining, or silent. */
    static String state() {
        return System.nanoTime() - heard < STALE_NANOS ? state : "silent";
    }
}
