package byoc;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

final class ModelMemoryTest {
    @TempDir
    Path folder;

    private void write(String name, String text) throws IOException {
        Files.writeString(folder.resolve(name), text);
    }

    @Test
    void aGroupHasLeftWhatItDoesNotUseButForFilesThatCanBeReadAgain() throws IOException {
        write("memory.max", "1000000\n");
        write("memory.current", "700000\n");
        write("memory.stat", "anon 100\nfile_mapped 5000\ninactive_file 60000\nactive_file 40000\nactive_file_x 1\n");
        assertEquals(1_000_000 - 700_000 + 60_000 + 40_000 - 5_000, ModelMemory.available(folder.toString()));
    }

    @Test
    void theFirstVersionOfGroupsHasOtherNames() throws IOException {
        write("memory.limit_in_bytes", "1000000\n");
        write("memory.usage_in_bytes", "700000\n");
        write("memory.stat", "inactive_file 1\ntotal_inactive_file 60000\ntotal_active_file 0\ntotal_mapped_file 5000\n");
        assertEquals(1_000_000 - 700_000 + 60_000 - 5_000, ModelMemory.available(folder.toString()));
    }

    @Test
    void theLeastOfAllCounts() throws IOException {
        write("memory.max", "max\n");
        long machine = ModelMemory.available(folder.toString()); // has no limit
        assertTrue(machine > 1_000_000 && ModelMemory.available("") > 1_000_000);
        Path inner = Files.createDirectory(folder.resolve("inner"));
        Files.writeString(inner.resolve("memory.max"), "1000\n");
        Files.writeString(inner.resolve("memory.current"), "2000\n");
        assertEquals(-1000, ModelMemory.available(folder + ":" + inner));
    }
}
