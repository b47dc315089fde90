package byoc;

import java.io.File;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.LockSupport;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * The memory that this machine, or this container's share of it, has left for further models. It is measured, for what
 * a model takes once it is loaded nobody knows before; what one takes while it is loaded is an estimate.
 */
final class ModelMemory {
    private static final Path MACHINE = Paths.get("/proc/meminfo");
    private static final long RETURN_NANOS = TimeUnit.SECONDS.toNanos(5); // until all of a model's memory is back
    private static final long PAUSE_NANOS = TimeUnit.MILLISECONDS.toNanos(50);
    private static final long MEGABYTE = 1_000_000;

    private static long promised; // to models that are being loaded
    private static volatile long unloaded = System.nanoTime() - RETURN_NANOS; // the last time

    private ModelMemory() {}

    /** Bytes that loading the model takes, by the size of its weights. */
    static long needed(long weights) {
        return Health.settings.modelBytes + (long) (Health.settings.weightCopies * weights);
    }

    /** Sets the bytes aside, until they are given back. Refused with 507 where there are not as many. */
    static void promise(String model, long bytes) throws Refusal {
        long free;
        while ((free = take(bytes)) < bytes) {
            if (System.nanoTime() - unloaded >= RETURN_NANOS) {
                String message = "Model " + model + " takes some " + bytes / MEGABYTE + " MB to load, and of this server's"
                        + " memory " + Math.max(0, free) / MEGABYTE + " MB are left for it: unload another model first.";
                throw new Refusal(507, "InsufficientMemory", message);
            }
            LockSupport.parkNanos(PAUSE_NANOS);
        }
    }

    /** Returns what is free; if that suffices, the bytes are promised. */
    private static synchronized long take(long bytes) {
        // Each worker that is loaded may decode a large image at any time, and there may be many requests.
        Settings settings = Health.settings;
        long reserved = Health.workers.loaded() * settings.imageBytes + settings.bodyBytes + settings.workerBytes;
        long free = available(settings.memoryFolders) - promised - reserved;
        if (bytes <= free) {
            promised += bytes;
        }
        return free;
    }

    static synchronized void giveBack(long bytes) {
        promised -= bytes;
    }

    static void unloaded() {
        unloaded = System.nanoTime();
    }

    /** `folders`: the cgroups that have a limit, as a class path. */
    static long available(String folders) {
        long least = number(MACHINE, "MemAvailable:") * 1024;
        for (String name : folders.split(File.pathSeparator)) {
            Path folder = Paths.get(name);
            boolean first = Files.exists(folder.resolve("memory.limit_in_bytes"));
            String total = first ? "total_" : "";
            long limit = number(folder.resolve(first ? "memory.limit_in_bytes" : "memory.max"), "");
            long used = number(folder.resolve(first ? "memory.usage_in_bytes" : "memory.current"), "");
            Path stat = folder.resolve("memory.stat");
            long files = number(stat, total + "inactive_file") + number(stat, total + "active_file");
            long mapped = number(stat, first ? "total_mapped_file" : "file_mapped"); // programs: they would come back
            if (limit > 0) {
                least = Math.min(least, limit - used + Math.max(0, files - mapped));
            }
        }
        return least;
    }

    /** The first number behind the key, at the beginning of a line; 0 where there is none, or no such file or limit. */
    static long number(Path file, String key) {
        try {
            Matcher found = Pattern.compile("(?m)^" + key + "\\s*([0-9]{1,18})\\b").matcher(Files.readString(file));
            return found.find() ? Long.parseLong(found.group(1)) : 0;
        } catch (IOException none) {
            return 0;
        }
    }
}
