package byoc;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.netty.bootstrap.ServerBootstrap;
import io.netty.channel.epoll.Epoll;
import io.netty.handler.codec.http.HttpObjectDecoder;
import java.nio.file.Path;
import org.apache.logging.log4j.LogManager;
import org.apache.logging.log4j.core.LoggerContext;
import org.junit.jupiter.api.Test;

/** The class path's order: multi-model-server's jar has older copies. */
final class LibrariesTest {
    private static String jar(Class<?> type) throws Exception {
        return Path.of(type.getProtectionDomain().getCodeSource().getLocation().toURI()).getFileName().toString();
    }

    @Test
    void nettyAndLog4jAreTheProjectsOwn() throws Exception {
        for (Class<?> type : new Class<?>[] {ServerBootstrap.class, HttpObjectDecoder.class, Epoll.class}) {
            assertTrue(jar(type).startsWith("netty-"), jar(type));
        }
        assertTrue(jar(LoggerContext.class).startsWith("log4j-core-"), jar(LoggerContext.class));
        assertEquals(
                LogManager.class.getPackage().getImplementationVersion(),
                LoggerContext.class.getPackage().getImplementationVersion());
    }
}
